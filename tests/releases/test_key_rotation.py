"""Rotations of signing keys during rollouts to real agents over HTTP, and a credential signed by a retired key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.fleet.models import Agent as Row
from apps.releases.models import Deployment
from apps.tenancy import tasks
from apps.tenancy.models import SigningKey
from apps.tenancy.services import signing_keys
from byteor.agent.api import ControlPlane, OfferedBundle
from byteor.agent.identity import BaseUrl, Credentials, SecretValue
from byteor.agent.key_rotation import KeyRotation
from byteor.agent.keyring import Keyring
from byteor.agent.loop import AgentLoop
from byteor.agent.offer_handler import OfferHandler
from byteor.agent.pipeline import BundleRunner
from byteor.agent.requested_captures import RequestedCaptures
from byteor.agent.resource_meter import ResourceMeter
from byteor.agent.retry import Backoff
from byteor.agent.state_folder import StateFolder
from byteor.engine.signing.bundle import open_bundle
from tests.patience import wait_until
from tests.releases import stories
from tests.releases.stories import waves
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db(transaction=True)


class Node:
    """One reference agent with its own state folder, key set and connection. ``thread`` runs its main loop."""

    def __init__(self, row: Row, key: str, url: str, folder: Path) -> None:
        self.row, self.state = row, StateFolder(folder)
        self.plane = ControlPlane(Credentials(BaseUrl.parse(url), str(row.pk), SecretValue(key)))
        self.signers: set[str] = set()
        self.off = threading.Event()
        keyring = Keyring(self.state, self.plane)
        offer_handler = OfferHandler(
            state=self.state,
            plane=self.plane,
            keyring=keyring,
            pipeline=BundleRunner(self.state, (), {}),
            environment_id=str(row.environment_id),
            now=lambda: datetime.now(UTC),
        )
        self.agent = AgentLoop(
            plane=self.plane, keyring=keyring, rotation=KeyRotation(self.state, self.plane, stores_key=False),
            offer_handler=offer_handler, usage=ResourceMeter(folder),
            captures=RequestedCaptures(self.state, self.plane, now=lambda: datetime.now(UTC), backoff=Backoff()),
            wait=self.off.wait, backoff=Backoff(lambda: 0.01), interval_s=0.1,
        )  # fmt: skip
        self.thread = threading.Thread(target=self.agent.run)

        fetch = self.plane.fetch_offer

        def noted() -> OfferedBundle | None:
            response = fetch()
            if response is not None and isinstance(response.envelope, dict):
                self.signers.add(response.envelope["signatures"][0]["keyid"])
            return response

        self.plane.fetch_offer = noted  # type: ignore[method-assign]  # it has the same signature

    def stop(self) -> None:
        self.off.set()
        if self.thread.ident:
            self.thread.join()

    def knows(self, kid: str) -> bool:
        """Return whether the key set that the agent has stored contains the key."""
        stored = self.state.keys()
        return stored is not None and stored.keyset.find(kid) is not None


type Start = Callable[[World, int], list[Node]]


@pytest.fixture
def start(live_server: Any, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that enrolls ``count`` agents in prod without starting them."""
    nodes: list[Node] = []

    def enroll(world: World, count: int) -> list[Node]:
        for row, api in stories.fleet(world, count, world.prod):
            assert api.token is not None
            nodes.append(Node(row, api.token, live_server.url, tmp_path / row.name))
        return nodes

    yield enroll
    for node in nodes:
        node.stop()


def until(done: Callable[[], object]) -> None:
    """Wait until ``done`` returns true. Meanwhile the agents run but the worker does not, so no wave starts."""
    wait_until(done, every_s=0.02)


def approved(world: World, name: str, **options: Any) -> Deployment:
    """Create an approved deployment in prod. The active key signed its credential, and its bundle is not built yet."""
    deployment = world.deployment(world.bundle(world.prod, name, env={"NAME": name}), **options)
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    return deployment


def rotate(world: World, **options: Any) -> SigningKey:
    return signing_keys.rotate(organization=world.organization, actor=world.admin.actor, **options)


def pass_time(seconds: float) -> None:
    """Move the times of all signing keys ``seconds`` into the past, as if that time had passed."""
    for key in SigningKey.objects.all():
        for name in ("not_before", "signs_until", "not_after"):
            if (moment := getattr(key, name)) is not None:
                setattr(key, name, moment - timedelta(seconds=seconds))
        key.save()


def test_agents_accept_bundles_despite_rotations_between_waves(world: World, start: Start) -> None:
    nodes = start(world, 4)
    one, two, three, absent = nodes
    first = SigningKey.objects.get(organization=world.organization)
    absent.agent.run_until_idle()  # this agent fetches the first key and is offline during the rotations
    for node in (one, two, three):
        node.thread.start()
    until(lambda: all(node.knows(first.kid) for node in nodes))

    # The first key signed the approval credential. The bundle is built after an immediate rotation to the second key.
    # The credential stays valid, because the first key was not retired when it signed.
    deployment = approved(world, "quotes", strategy=waves(25, 50, 75, 100, auto_rollback=False))
    done = deployment.agents.filter(progress="active")
    second = rotate(world, activate_in_s=0)
    run_jobs()
    until(lambda: done.count() == 1)

    # Rotate again immediately: the next wave gets a signature of a key that was created seconds ago.
    third = rotate(world, activate_in_s=0)
    run_jobs()
    until(lambda: done.count() == 2)

    # Rotate with the normal delay: agents that are online have the next key before it signs. The key becomes active at
    # its activation time, even if the worker stores the new status later.
    fourth = rotate(world)
    until(lambda: all(node.knows(fourth.kid) for node in (one, two, three)))
    assert signing_keys.key_set(world.organization.pk).active.kid == third.kid
    pass_time(90)
    run_jobs()
    until(lambda: done.count() == 3)

    # The agent that missed all rotations starts. The key that signed the approval in its bundle is retired now.
    signing_keys.retire(first, reason="an emergency", actor=world.admin.actor)
    run_jobs()
    assert not absent.knows(second.kid)
    absent.thread.start()
    until(lambda: done.count() == 4)
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.wave) == ("active", 3)
    assert [node.signers for node in nodes] == [{second.kid}, {third.kid}, {fourth.kid}, {fourth.kid}]
    for node in nodes:
        progress = node.state.progress()
        assert progress.running is not None
        assert (progress.running.deployment_id, progress.last_failed) == (str(deployment.pk), None)
    assert not deployment.agents.exclude(detail="").exists()
    # The key set in the tar contains the keys that existed when the build started.
    tar = absent.state.bundle(deployment.bundle_hash or "")
    assert tar is not None
    assert [key.kid for key in open_bundle(tar).signing_keys] == [second.kid, first.kid]


def test_agent_accepts_bundle_after_rotation_between_heartbeat_and_download(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat's response names the old key set. Then a key that the agent does not have signs the offer."""
    [node] = start(world, 1)
    node.agent.run_until_idle()
    deployment = approved(world, "quotes")
    run_jobs()
    fetch = node.plane.fetch_offer
    fetched: list[OfferedBundle | None] = []

    def late() -> OfferedBundle | None:
        if not fetched:
            rotate(world, activate_in_s=0)
        fetched.append(fetch())
        return fetched[-1]

    monkeypatch.setattr(node.plane, "fetch_offer", late)
    node.agent.run_until_idle()
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, len(fetched)) == ("active", 2)
    assert node.state.progress().last_failed is None


def test_agent_accepts_bundle_whose_key_is_retired_during_download(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second key signs the agent's first offer, and is replaced and retired before the agent checks the offer."""
    [node] = start(world, 1)
    node.agent.run_until_idle()
    deployment = approved(world, "quotes")
    run_jobs()
    second = rotate(world, activate_in_s=0)
    known = node.state.keys()
    fetch = node.plane.fetch_offer
    fetched: list[OfferedBundle | None] = []

    def late() -> OfferedBundle | None:
        fetched.append(fetch())
        if len(fetched) == 1:
            rotate(world, activate_in_s=0)
            signing_keys.retire(second, reason="leaked", actor=world.admin.actor)
        return fetched[-1]

    monkeypatch.setattr(node.plane, "fetch_offer", late)
    # The agent fetches no key set after its heartbeat, as if the heartbeat had come before the first rotation.
    monkeypatch.setattr(Keyring, "refresh_if_changed", lambda *_: None)
    node.agent.run_until_idle()
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, len(fetched)) == ("active", 2)
    assert node.state.keys() != known
    assert node.state.progress().last_failed is None


def test_credential_signed_by_retired_key_can_be_used(world: World) -> None:
    first = SigningKey.objects.get(organization=world.organization)
    world.agent(world.prod)
    deployment = approved(world, "quotes")
    rotate(world, activate_in_s=0)
    signing_keys.retire(first, reason="over", actor=world.admin.actor)
    tasks.note_keys()

    run_jobs()

    deployment.refresh_from_db()
    assert deployment.status == "deploying"
