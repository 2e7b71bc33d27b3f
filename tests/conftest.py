"""Fixtures for worlds and for running jobs. ``tests.database`` provides PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# pytest explains failed assertions in these helper modules as it does in tests.
FOLDERS = ("agent", "artifacts", "browser", "engine", "pipelines", "releases", "system", "tenancy", "verify")
pytest.register_assert_rewrite(*(f"tests.{folder}" for folder in FOLDERS))

TESTS = Path(__file__).parent
SEED = int(os.environ.get("BYTEOR_TEST_SEED", "1"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print the seeds of the random stories even if all tests pass."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        reporter.write_line(f"BYTEOR_TEST_SEED={SEED}")


# These files wait for servers, browsers and processes, or run one long story. If they started last, they would prolong
# the whole run. Tests that only need the processor fill the gaps.
SLOWEST_FIRST = ("crash/", "system/", "releases/test_stateful", "browser/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first. ``--no-loadscope-reorder`` makes xdist keep this order."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(TESTS).as_posix()
        return next((rank for rank, slow in enumerate(SLOWEST_FIRST) if path.startswith(slow)), len(SLOWEST_FIRST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Disable the triggers that forbid to empty the audit tables, because transactional tests empty all tables.

    The test of the triggers enables them again. At the end, close connections that threads of tests left open, because
    they would prevent dropping the database.
    """
    from django.apps import apps
    from django.db import connection

    for model in apps.get_app_config("procrastinate").get_models():
        model._meta.managed = True  # Django empties no other tables, and a later test would run the jobs

    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tenancy_auditevent DISABLE TRIGGER tenancy_auditevent_no_truncate")
        cursor.execute("ALTER TABLE tenancy_auditseal DISABLE TRIGGER tenancy_auditseal_no_truncate")
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture
def run_jobs() -> Callable[..., int]:
    """Return a function that runs waiting jobs in this thread and transaction and returns how many ran."""
    from tests.worlds import run_jobs

    return run_jobs


@cache
def _recorded_world(name: str) -> Callable[[], Any]:
    from tests.recorded import Recorded
    from tests.worlds import World

    return Recorded(lambda: World(name))


@pytest.fixture
def world(db: None) -> Any:
    """Create an organization with a project, an environment of each posture, and a person of each role."""
    return _recorded_world("acme")()


@pytest.fixture
def other(db: None) -> Any:
    """Create another organization like ``world``."""
    return _recorded_world("umbrella")()


@pytest.fixture(autouse=True)
def _fresh_limits() -> None:
    """Reset the rate limits, so that tests do not affect each other."""
    from apps.tenancy.api import limits

    limits._local.clear()
