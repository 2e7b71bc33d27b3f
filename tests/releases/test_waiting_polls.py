"""Polls that wait until the agent's offer changes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection

from apps.fleet.services import agents
from apps.fleet.services.verified_keys import agent_keys
from apps.releases.api import offered
from apps.releases.api.agent_path import application
from apps.releases.api.agent_path.waiting import (
    LARGE_BURST,
    StopReason,
    WaitingRoom,
)
from apps.releases.api.offered import Offered
from byteor_cloud.database.notices import notices
from byteor_cloud.ids import uuid7
from tests.patience import PATIENCE_S, wait_until
from tests.releases import stories
from tests.worlds import World


class Poll:
    """A poll in its own thread, with a requested wait of 30 seconds."""

    def __init__(self, api: Any, agent: Any, etag: str) -> None:
        self.response: Any = None
        self._thread = threading.Thread(target=self._run, args=(api, f"/api/v1/agents/{agent.pk}/deployment", etag))
        self._thread.start()

    def _run(self, api: Any, path: str, etag: str) -> None:
        try:
            self.response = api.get(f"{path}?wait_s=30", If_None_Match=etag)
        finally:
            connection.close()

    def finish(self) -> Any:
        """Wait for the response and return it."""
        self._thread.join(PATIENCE_S)
        assert self.response is not None
        return self.response


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[WaitingRoom]:
    """Give the WSGI layer for agents an empty waiting room in which polls wait for up to ``PATIENCE_S``."""
    made = WaitingRoom()
    wait = made.wait
    monkeypatch.setattr(made, "wait", lambda waiter, seconds: wait(waiter, PATIENCE_S))
    monkeypatch.setattr(application, "waiting_room", made)
    agent_keys.on_change(made.wake)
    yield made
    agent_keys._listeners.remove(made.wake)
    made.close()


@pytest.fixture
def polling(listening: None, room: WaitingRoom) -> Callable[[], Any]:
    """Return a function that enrolls an agent and starts a waiting poll of this agent."""

    def start() -> Any:
        world = World("acme")
        [(agent, api)] = stories.fleet(world, 1)
        etag = api.get(f"/api/v1/agents/{agent.pk}/deployment")["ETag"]
        poll = Poll(api, agent, etag)
        wait_until(lambda: len(room) == 1)
        return world, agent, api, etag, poll

    return start


def test_new_offer_wakes_poll(polling: Any, room: WaitingRoom) -> None:
    world, _, _, _, poll = polling()

    deployment = stories.offered(world, world.bundle())

    response = poll.finish()
    assert (response.status_code, response.json()["desired"]["deployment_id"]) == (200, str(deployment.pk))
    assert len(room) == 0


def test_decommissioning_wakes_poll_with_401(polling: Any) -> None:
    world, agent, _, _, poll = polling()

    agents.decommission(agent, actor=world.admin.actor)

    assert poll.finish().status_code == 401


def test_second_poll_of_agent_stops_first_poll(polling: Any, room: WaitingRoom) -> None:
    _, agent, api, etag, first = polling()

    second = Poll(api, agent, etag)

    response = first.finish()
    assert (response.status_code, response["ETag"], response.content) == (304, etag, b"")
    assert second.response is None
    room.close()
    assert second.finish().status_code == 304


def test_shutdown_stops_waiting_poll(polling: Any, room: WaitingRoom) -> None:
    _, agent, api, etag, poll = polling()

    room.close()

    assert poll.finish().status_code == 304
    assert Poll(api, agent, etag).finish().status_code == 304  # later polls do not wait


def test_poll_returns_offer_made_while_notification_connection_was_lost(polling: Any, room: WaitingRoom) -> None:
    world, _, _, _, poll = polling()
    notices.stop()
    deployment = stories.offered(world, world.bundle())

    notices.start()

    assert poll.finish().json()["desired"]["deployment_id"] == str(deployment.pk)


def test_change_of_another_agent_does_not_wake_poll(polling: Any, room: WaitingRoom) -> None:
    world, _, _, etag, poll = polling()
    other, other_api = world.agent(name="other")
    waiting = Poll(other_api, other, etag)
    wait_until(lambda: len(room) == 2)

    agents.decommission(other, actor=world.admin.actor)

    assert waiting.finish().status_code == 401
    assert poll.response is None
    room.close()
    poll.finish()


@pytest.mark.django_db
def test_poll_over_capacity_returns_retry_after(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "waiting_room", WaitingRoom(capacity=0))
    [(agent, api)] = stories.fleet(world, 1)
    path = f"/api/v1/agents/{agent.pk}/deployment"
    etag = api.get(path)["ETag"]

    response = api.get(f"{path}?wait_s=30", If_None_Match=etag)

    assert (response.status_code, response["ETag"]) == (304, etag)
    assert 5 <= int(response["Retry-After"]) <= 15


@pytest.mark.django_db
def test_poll_without_change_returns_304_without_retry_after(world: World) -> None:
    [(agent, api)] = stories.fleet(world, 1)
    path = f"/api/v1/agents/{agent.pk}/deployment"
    etag = api.get(path)["ETag"]

    response = api.get(f"{path}?wait_s=1", If_None_Match=etag)

    assert (response.status_code, response.get("Retry-After")) == (304, None)


@pytest.mark.django_db
def test_poll_without_matching_etag_does_not_wait(world: World, room: WaitingRoom) -> None:
    [(agent, api)] = stories.fleet(world, 1)

    response = api.get(f"/api/v1/agents/{agent.pk}/deployment?wait_s=30", If_None_Match='"another"')

    assert response.status_code == 200
    assert len(room) == 0


def test_connections_resume_with_delay_only_after_large_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    room = WaitingRoom(capacity=3000, processes=2)
    small = [room.enter(uuid7()) for _ in range(LARGE_BURST - 1)]
    room.wake(None)
    now[0] += 10
    waiters = [room.enter(uuid7()) for _ in range(3000)]

    for first in range(0, 3000, 200):  # 200 agents, as in one notification
        room.wake([waiter.agent_id for waiter in waiters[first : first + 200]])
        now[0] += 0.1

    assert {waiter.burst.resumes_at(1.0) for waiter in small if waiter.burst} == {1000.0}
    other = room.enter(uuid7(), uuid7())
    room.wake([other.agent_id])
    assert other.burst is not None
    assert other.burst.resumes_at(1.0) == now[0]  # a burst in one environment does not delay other environments
    # Successive notifications are one burst. The two processes send offers to 6,000 agents within two seconds, and
    # the agents resume over the next 12 seconds.
    [burst] = {waiter.burst for waiter in waiters}
    assert burst is not None
    assert [burst.resumes_at(share) - 1010 for share in (0.0, 0.5, 1.0)] == pytest.approx([2, 8, 14])
    assert all(waiter.reason is StopReason.CHANGED for waiter in waiters)


def test_connections_resume_without_delay_when_process_shuts_down() -> None:
    room = WaitingRoom(processes=64)
    waiters = [room.enter(uuid7()) for _ in range(LARGE_BURST)]
    room.wake(None)
    room.close()

    assert waiters[0].burst is not None
    assert waiters[0].burst.resumes_at(1.0) > time.monotonic()
    room.rest(waiters[0].burst)


def test_poll_woken_without_change_keeps_waiting(polling: Any, room: WaitingRoom) -> None:
    _, agent, _, etag, poll = polling()
    woken = room._waiters[agent.pk]

    room.wake([agent.pk])

    wait_until(lambda: room._waiters.get(agent.pk, woken) is not woken)
    assert poll.response is None
    room.close()
    response = poll.finish()
    assert (response.status_code, response["ETag"]) == (304, etag)


def test_woken_poll_returns_503_when_database_fails(
    polling: Any, room: WaitingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, agent, _, _, poll = polling()

    def fail(parameter: str) -> list[Any]:
        raise OperationalError

    monkeypatch.setattr(offered._assignments, "run", fail)
    for key in agent_keys._by_agent[agent.pk]:
        key.offer_tag = None
    room.wake([agent.pk])

    response = poll.finish()
    assert (response.status_code, response.json()["type"]) == (503, "urn:byteor:problem:unavailable")
    assert 5 <= int(response["Retry-After"]) <= 15
    assert len(room) == 0


@pytest.mark.django_db
def test_query_count_of_offers_does_not_depend_on_number_of_agents(
    world: World, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = stories.fleet(world, 6)
    other = World("other")
    [(stranger, _)] = stories.fleet(other, 1)
    deployments = [stories.offered(each, each.bundle()) for each in (world, other)]
    newcomer, _ = world.agent(name="newcomer", environment=world.staging)
    monkeypatch.setattr(offered, "_texts", offered._Texts())
    monkeypatch.setattr(offered, "KEPT_S", -1.0)
    ids = [agent.pk for agent, _ in fleet]

    with django_assert_num_queries(4):  # assignments, deployment, active key, signing key
        alone = [offered.read_offers([pk])[0] for pk in ids[:1]]
    with django_assert_num_queries(4):
        together = offered.read_offers(ids)
    with django_assert_num_queries(5):  # one signing key for each organization
        mixed = offered.read_offers([*ids, stranger.pk, newcomer.pk, uuid7()])
    monkeypatch.setattr(offered, "KEPT_S", PATIENCE_S)
    offered.read_offers(ids)
    with django_assert_num_queries(2):  # assignments, active key; the kept texts are used
        again = offered.read_offers(ids)

    assert together[:1] == alone
    assert mixed[:6] == together == again
    assert len({each.etag for each in together if each}) == 6
    desired = [each and json.loads(each.text)["desired"] for each in mixed]
    found = [each and (each["deployment_id"], each["bundle_url"]) for each in desired]
    assert found == [
        *(
            (str(deployments[0].pk), f"/api/v1/agents/{pk}/deployment/bundle?hash={deployments[0].bundle_hash}")
            for pk in ids
        ),
        (str(deployments[1].pk), f"/api/v1/agents/{stranger.pk}/deployment/bundle?hash={deployments[1].bundle_hash}"),
        None,
        None,
    ]
    assert (mixed[-2], mixed[-1]) == (Offered.of('{"desired":null}'), None)
    keyids = [each["envelope"]["signatures"][0]["keyid"] for each in desired if each]
    assert keyids[-1] not in keyids[:-1]


def test_rollout_wakes_each_waiting_agent_once(listening: None, room: WaitingRoom) -> None:
    world = World("acme")
    fleet = stories.fleet(world, 30)
    notified: list[list[Any]] = []
    agent_keys.on_change(lambda agent_ids: notified.append(list(agent_ids or ())))
    polls = []
    for agent, api in fleet:
        etag = api.get(f"/api/v1/agents/{agent.pk}/deployment")["ETag"]
        polls.append(Poll(api, agent, etag))
    wait_until(lambda: len(room) == len(fleet))
    notified.clear()

    deployment = stories.offered(world, world.bundle())

    responses = [poll.finish() for poll in polls]  # the wait is long, so each response is an offer
    agent_keys._listeners.pop()
    assert [response.json()["desired"]["deployment_id"] for response in responses] == [str(deployment.pk)] * len(fleet)
    assert [sorted(ids) for ids in notified if ids] == [sorted(agent.pk for agent, _ in fleet)]
