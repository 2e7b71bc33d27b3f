"""The cache of verified agent keys: which queries it avoids, and which changes remove keys from it.

One test checks how PostgreSQL updates the rows of repeated heartbeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent, AgentKey, Heartbeat
from apps.fleet.services import agents, heartbeats, keys
from apps.fleet.services import verified_keys as module
from apps.fleet.services.verified_keys import AgentKeys, agent_keys
from apps.tenancy.credentials import Family, credential_digest, generate
from apps.tenancy.models import Environment, Project
from apps.tenancy.services import organizations, signing_keys
from byteor_cloud.database.notices import Notices, notices
from tests.patience import wait_until
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World


def beat(api: Api, agent: Agent) -> Any:
    return api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})


def queries(call: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        call()
    return [query["sql"].split()[0] for query in captured]


def is_known(api: Api) -> bool:
    return credential_digest(api.token or "") in agent_keys._keys


def test_cached_key_needs_no_lookup_query(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    path = f"/api/v1/agents/{agent.pk}/deployment"
    beat(api, agent)
    etag = api.get(path)["ETag"]

    assert queries(lambda: beat(api, agent)) == ["WITH"]
    assert queries(lambda: api.get(path, If_None_Match=etag)) == []
    assert api.get(path, If_None_Match=etag).status_code == 304


def test_poll_returns_new_response_after_offer_or_signing_key_changes(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    path = f"/api/v1/agents/{agent.pk}/deployment"
    etag = api.get(path)["ETag"]
    assert api.get(path, If_None_Match=etag).status_code == 304

    deployment = stories.offered(world, world.bundle())

    wait_until(lambda: api.get(path, If_None_Match=etag).status_code == 200)
    response = api.get(path, If_None_Match=etag)
    assert response.json()["desired"]["deployment_id"] == str(deployment.pk)
    signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)
    # The response changes, because its envelope is signed with the new key.
    wait_until(lambda: api.get(path, If_None_Match=response["ETag"]).status_code == 200)


INVALIDATIONS: dict[str, Callable[[World, Agent], Any]] = {
    "rotated": lambda world, agent: keys.rotate_key(agent, actor=world.admin.actor),
    "decommissioned": lambda world, agent: agents.decommission(agent, actor=world.admin.actor),
    "environment deleted": lambda world, agent: organizations.delete(
        world.dev, kind="environment", actor=world.admin.actor
    ),
    "project deleted": lambda world, agent: organizations.delete(
        world.project, kind="project", actor=world.admin.actor
    ),
    "revoked": lambda world, agent: AgentKey.objects.update(revoked_at=timezone.now()),
    "expired": lambda world, agent: AgentKey.objects.update(expires_at=timezone.now()),
    "deleted": lambda world, agent: AgentKey.objects.all().delete(),
}


@pytest.mark.parametrize("reason", INVALIDATIONS)
def test_cached_key_is_refused_after_it_becomes_invalid(listening: None, reason: str) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    assert beat(api, agent).status_code == 200
    assert is_known(api)

    INVALIDATIONS[reason](world, agent)

    wait_until(lambda: beat(api, agent).status_code == 401)
    assert not is_known(api)


def test_key_is_accepted_again_after_its_project_is_restored(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    organizations.delete(world.project, kind="project", actor=world.admin.actor)
    assert beat(api, agent).status_code == 401

    Project.objects.update(deleted_at=None)  # no API operation restores projects

    wait_until(lambda: beat(api, agent).status_code == 200)


def test_expired_cached_key_is_refused(listening: None, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    AgentKey.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    assert beat(api, agent).status_code == 200

    monkeypatch.setattr("apps.fleet.services.verified_keys.time.time", lambda: timezone.now().timestamp() + 3601)

    # While the cache is not current, the key is looked up and the database's clock decides.
    wait_until(lambda: beat(api, agent).status_code == 401)


def test_changed_heartbeat_interval_applies_to_cached_keys(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    beat(api, agent)

    Environment.objects.filter(pk=world.dev.pk).update(settings={"heartbeat_interval_s": 500})

    wait_until(lambda: beat(api, agent).json()["next_heartbeat_s"] > 400)


def test_key_cache_is_not_used_while_database_notifications_are_stopped(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    beat(api, agent)
    [key] = AgentKey.objects.all()
    notices.stop()
    assert is_known(api)

    looked_up, used, stored = queries(lambda: beat(api, agent))
    assert (looked_up, stored) == ("SELECT", "WITH")
    assert used == "WITH"  # this statement stores the use of the key that was just looked up
    AgentKey.objects.update(revoked_at=timezone.now())
    assert beat(api, agent).status_code == 401

    AgentKey.objects.filter(pk=key.pk).update(revoked_at=None)  # a look-up of the key succeeds again
    notices.start()
    wait_until(notices.is_current)
    assert not is_known(api)
    assert beat(api, agent).status_code == 200


def test_key_revoked_while_database_notifications_are_interrupted_is_refused(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    beat(api, agent)
    gaps: list[None] = []
    notices.on_gap(lambda: gaps.append(None))

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND query = 'SELECT 1'"
        )
    AgentKey.objects.update(revoked_at=timezone.now())

    wait_until(lambda: beat(api, agent).status_code == 401)
    wait_until(lambda: gaps and notices.is_current())
    assert beat(api, agent).status_code == 401
    notices._gap_handlers.pop()


def test_each_lost_connection_for_notifications_is_logged_once(
    listening: None, caplog: pytest.LogCaptureFixture
) -> None:
    def is_logged(times: int) -> bool:
        return sum("notices_lost" in str(record.msg) for record in caplog.records) == times

    caplog.set_level("WARNING")
    for losses in (1, 2):
        wait_until(notices.is_current)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND query = 'SELECT 1'"
            )
        wait_until(partial(is_logged, losses))
    wait_until(notices.is_current)

    assert is_logged(2)


def test_key_revoked_during_lookup_is_not_cached(listening: None) -> None:
    world = World("acme")
    [(agent, api)] = stories.fleet(world, 1)
    read = module._statement.run
    key = credential_digest(api.token or "")

    def read_then_revoke(*args: Any) -> Any:
        rows = read(*args)
        agents.decommission(agent, actor=world.admin.actor)
        wait_until(lambda: agent_keys._changes > changes)
        return rows

    changes = agent_keys._changes
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module._statement, "run", read_then_revoke)
        assert agent_keys.find(key) is not None  # the look-up read the key before its revocation

    assert agent_keys.find(key) is None


class AlwaysCurrent(Notices):
    """Subscriptions that receive no notifications but claim to be current, so the cache is always used."""

    def is_current(self) -> bool:
        """Return True."""
        return True


@pytest.fixture
def own_keys(monkeypatch: pytest.MonkeyPatch) -> AgentKeys:
    """Return a separate cache. Unless the test sets ``FLOOD_PAUSE_S``, it does not pause after failed look-ups."""
    monkeypatch.setattr(module, "FLOOD_PAUSE_S", 0.0)
    return AgentKeys(AlwaysCurrent())


def test_concurrent_lookups_of_unknown_keys_share_queries_and_fill_bounded_cache(
    concurrently: Race, own_keys: AgentKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLOOD_PAUSE_S", 0.3)
    monkeypatch.setattr(module, "MAX_UNKNOWN", 20)
    read, calls = module._statement.run, []

    def count(*args: Any) -> Any:
        calls.append(args)
        return read(*args)

    monkeypatch.setattr(module._statement, "run", count)
    unknown = [generate(Family.AGENT).digest for _ in range(60)]

    found = concurrently(*(lambda key=key: own_keys.find(key) for key in unknown))

    assert found == [None] * 60
    assert len(calls) <= 10
    assert len(own_keys._unknown) == 20
    before = len(calls)
    assert own_keys.find(next(reversed(own_keys._unknown))) is None
    assert len(calls) == before


@pytest.mark.django_db
def test_key_cache_has_bounded_size(world: World, own_keys: AgentKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 3)
    fleet = stories.fleet(world, 5)

    for _, api in fleet:
        assert own_keys.find(credential_digest(api.token or "")) is not None

    assert [key.agent_id for key in own_keys._keys.values()] == [agent.pk for agent, _ in fleet[2:]]
    assert set(own_keys._by_agent) == {agent.pk for agent, _ in fleet[2:]}


@pytest.mark.django_db
def test_cached_key_is_looked_up_again_after_maximum_age(
    world: World, own_keys: AgentKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(_, api)] = stories.fleet(world, 1)
    key = credential_digest(api.token or "")
    own_keys.find(key)
    assert queries(lambda: own_keys.find(key)) == []

    now = time.monotonic()
    monkeypatch.setattr("apps.fleet.services.verified_keys.time.monotonic", lambda: now + module.MAX_AGE_S)

    assert queries(lambda: own_keys.find(key)) == ["SELECT"]


@pytest.mark.django_db(transaction=True)
def test_repeated_heartbeats_are_mostly_heap_only_updates() -> None:
    def updates() -> tuple[int, int]:
        heartbeats._statement.close()  # a closed session reports its counts immediately, an idle one after ten seconds
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'fleet_heartbeat'")
            found: tuple[int, int] = cursor.fetchone()
        return found

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE fleet_heartbeat")  # earlier tests may have left pages without free space
    world = World("acme")
    agents = stories.fleet(world, 5)
    for number in range(13):
        if number == 3:  # the first heartbeats fill the columns, so that some rows move to another page
            before = updates()
        for agent, api in agents:
            assert beat(api, agent).status_code == 200

    wait_until(lambda: updates()[0] - before[0] >= 50)
    updated, hot = (now - then for now, then in zip(updates(), before, strict=True))
    # While another session has a snapshot, PostgreSQL cannot reuse space on the page. An index on a column that
    # heartbeats change would leave no heap-only (HOT) updates at all.
    assert hot >= 0.7 * updated
    assert Heartbeat.objects.count() == 5
