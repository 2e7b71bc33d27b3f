"""Hooks that order and distribute the tests, and fixtures for databases, worlds and jobs."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest

# pytest shows details of failed assertions in the helper modules of these folders, as it does in tests.
FOLDERS = (
    "agent",
    "api",
    "captures",
    "computing",
    "artifacts",
    "browser",
    "client",
    "engine",
    "pipelines",
    "releases",
    "schema_changes",
    "system",
    "tenancy",
    "verify",
)
pytest.register_assert_rewrite(*(f"tests.{folder}" for folder in FOLDERS))

# On a busy machine any test may be slow.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

SEED = int(os.environ.get("BYTEOR_TEST_SEED", "1"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print the seed of the random stories, even if all tests pass, and disable garbage collection."""
    gc.disable()  # until pytest_collection_finish, since loading tests creates hardly any garbage
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        reporter.write_line(f"BYTEOR_TEST_SEED={SEED}")


# These files wait for servers, browsers and processes, run one long story, or have very many cases. If they started
# last, they would prolong the whole run. The other tests fill the gaps. test_serving precedes the files that share its
# server, because it needs an unused one. crash/test_worker is the first crash test, because each kill makes the
# supervisor wait longer before it restarts the worker.
SLOWEST_FIRST = (
    "tests/crash/test_worker",
    "tests/crash/",
    "tests/system/test_hanging_database",  # mostly waits, like the crash tests, so other tests can run at the same time
    "tests/system/test_serving",
    "tests/laws/",
    "tests/system/test_slow_clients",
    "tests/releases/test_stateful",
    "tests/artifacts/test_gate_stories",
    "tests/browser/",
    "tests/system/",
)


def pytest_collection_finish() -> None:
    """Exclude all loaded objects from later garbage collections, and collect less often."""
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first. ``--no-loadscope-reorder`` makes xdist keep this order."""

    def rank(item: pytest.Item) -> int:
        return next((n for n, slow in enumerate(SLOWEST_FIRST) if item.nodeid.startswith(slow)), len(SLOWEST_FIRST))

    items.sort(key=rank)


# Files with the same value run in one process, because they share a running server.
SHARING = {
    "tests/crash/": "crash",
    "tests/system/test_agent_path.py": "running",
    "tests/system/test_serving.py": "running",
    "tests/system/test_simulate_fleet.py": "running",
}

# Each test function of these files is assigned separately. In one process, a file would prolong the whole run.
DIVIDED = ("tests/laws/test_access.py", "tests/laws/test_bodies.py", "tests/laws/test_enforced.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run each file in one process, except ``DIVIDED``. Files with the same ``SHARING`` value share a process."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist ships no types
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            if scope in DIVIDED:
                return nodeid.partition("[")[0]
            return next((shared for start, shared in SHARING.items() if scope.startswith(start)), scope)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None, django_db_blocker: Any) -> None:
    """Let the database of each process be a copy of the embedded server's migrated database.

    Migrate the server's database again, although its migrations are applied: the models may have new content types
    and permissions.
    On a server that BYTEOR_CLOUD_DATABASE_URL names, each process migrates its own test database.
    """
    from django.core.management import call_command
    from django.db import connection

    from tests.once import made_once

    def migrate(done: Path) -> None:
        call_command("migrate", verbosity=0)
        connection.close()
        # A database can be copied only while it has no connections.
        connection.close_pool()  # type: ignore[attr-defined]  # the wrapper for PostgreSQL has a pool
        done.touch()

    if "BYTEOR_EMBEDDED_DATABASE_URL" not in os.environ:
        return
    with django_db_blocker.unblock():
        made_once("template", migrate)
    connection.settings_dict["TEST"]["TEMPLATE"] = connection.settings_dict["NAME"]


# Tables that keep their rows. ``migrate`` fills the first three, and django_db_setup inserts one row into the last one.
KEPT = frozenset({"django_migrations", "django_content_type", "auth_permission", "tenancy_masterkey"})
SEALED = ("tenancy_auditevent", "tenancy_auditseal")  # their triggers refuse DELETE in any replication role


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Let transactional tests empty all tables except ``KEPT``, including tables that are protected by triggers.

    At the end, close connections that tests' threads left open, because they would prevent dropping the database.
    """
    from django.contrib.contenttypes.management import create_contenttypes
    from django.db import connection
    from django.db.models.signals import post_migrate

    from apps.tenancy.models import MasterKey
    from apps.tenancy.services import vault

    # Patch the class, because browser tests have another connection due to Playwright's event loop.
    type(connection.ops).sql_flush = _empty_tables  # type: ignore[assignment, method-assign]
    # Do not create content types and permissions again whenever tables are emptied, because their tables are KEPT.
    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        # A server inserts this row at its first start. Tests need the row without a server.
        MasterKey.objects.get_or_create(key_id=vault.own_key_ids()[0])
        # The test of these triggers enables them again.
        for table in SEALED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_no_truncate")
    yield
    with django_db_blocker.unblock():
        connection.close()
        # A test may have broken one of the pool's connections.
        connection.close_pool()  # type: ignore[attr-defined]  # the wrapper for PostgreSQL has a pool
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def _empty_tables(_: Any, style: Any, tables: Sequence[str], **options: Any) -> list[str]:
    """Return the statements that empty all tables except ``KEPT``, including those that Django does not manage.

    DELETE is far faster than TRUNCATE, which creates new files for each table. But DELETE is used only if triggers may
    be disabled, and not for the tables in ``SEALED``.
    """
    from django.db import connection

    from tests.recorded import may_disable_triggers

    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        names = {name for (name,) in cursor} - KEPT
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM \"{name}\")" for name in names))
        filled = {name for (name,) in cursor}
    truncated = filled.intersection(SEALED) if may_disable_triggers() else filled
    statements = ["SET LOCAL session_replication_role = replica"] if filled - truncated else []  # disables triggers
    statements += [f'DELETE FROM "{name}"' for name in sorted(filled - truncated)]
    return statements + ([f"TRUNCATE {', '.join(sorted(truncated))} CASCADE"] if truncated else [])


@pytest.fixture
def run_jobs() -> Callable[..., int]:
    """Return a function that runs waiting jobs in this thread and transaction, and returns how many it ran."""
    from tests.worlds import run_jobs

    return run_jobs


BEGIN = 1_800_000_000.0  # the start of a minute


@cache
def _recorded_world(name: str) -> Callable[[], Any]:
    from tests.recorded import Recorded
    from tests.worlds import World

    return Recorded(lambda: World(name))


@pytest.fixture
def world(db: None) -> Any:
    """Create an organization with a project, an environment of each posture, and people of each role."""
    return _recorded_world("acme")()


@pytest.fixture
def other(db: None) -> Any:
    """Create another organization like ``world``."""
    return _recorded_world("umbrella")()


@pytest.fixture
def limit_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the rate limits, most of which count per minute: a list with the time as its only item."""
    now = [BEGIN + 10.5]
    monkeypatch.setattr("apps.tenancy.api.limits.time", SimpleNamespace(time=lambda: now[0]))
    return now


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    """Reset state in memory, such as rate limits and cached agent keys, before or after each test.

    Otherwise tests would affect each other, since the worlds of different tests have the same ids and keys.
    """
    from apps.fleet.api import anonymous
    from apps.fleet.services import heartbeats
    from apps.fleet.services.verified_keys import agent_keys
    from apps.operations import metrics
    from apps.releases.api.agent_path import application, refused
    from apps.tenancy.api import limits
    from byteor_cloud.server import draining

    limits.clear_local()
    anonymous.callers = anonymous.AnonymousCallers()
    metrics.TEXT.discard()
    agent_keys.clear()
    refused.refused_agents.__init__()  # type: ignore[misc]  # other modules refer to the same object
    heartbeats.load_spreader = heartbeats.LoadSpreader()
    heartbeats.tally = heartbeats.Tally()
    yield
    draining.reset()
    application.waiting_room.open()
