"""Fixtures: a node, its fake control plane, and a second control plane that the agent must never contact."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from byteor.agent.api import ControlPlane
from byteor.agent.identity import BaseUrl, Credentials, SecretValue
from byteor.agent.key_rotation import KeyRotation
from byteor.agent.keyring import Keyring
from byteor.agent.loop import AgentLoop
from byteor.agent.offer_handler import OfferHandler
from byteor.agent.pipeline import BundleRunner
from byteor.agent.requested_captures import RequestedCaptures
from byteor.agent.resource_meter import ResourceMeter
from byteor.agent.retry import Backoff
from byteor.agent.state_folder import AgentIdentity, StateFolder
from byteor.engine.replay.journal import Record
from tests.agent.control_plane import AGENT_ID, API_KEY, ENVIRONMENT, NOW, FakeControlPlane

SAMPLE = (Record(1, 10, b'{"price":1}'), Record(2, 20, b"{}"), Record(3, 30, b'{"price":3}'))


@dataclass
class NodeUnderTest:
    """A node: its state folder, and a function that creates an agent for each start or restart."""

    folder: Path
    plane: FakeControlPlane
    environment: dict[str, str] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    """The latest agent's waits in seconds, except for the first, which only spreads a fleet's first heartbeats."""
    first_wait: float | None = None
    clock: list[float] = field(default_factory=lambda: [0.0])
    """The clock of key rotations and requested captures: a list with one value, which only tests change."""
    captures: list[RequestedCaptures] = field(default_factory=list)
    """The requested captures of the agents so far. The last one belongs to the latest agent."""

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.folder)

    def enroll(self) -> None:
        self.state.save_api_key(SecretValue(API_KEY))
        self.state.save_identity(AgentIdentity(self.plane.url, AGENT_ID, ENVIRONMENT, "node-1"))

    def agent(self, *, beats: int = 1, interval_s: float | None = None, stores_key: bool = True) -> AgentLoop:
        """Create an agent whose ``run`` ends at the wait number ``beats``, not counting the first wait."""
        self.waits.clear()
        self.first_wait = None

        def wait(seconds: float) -> bool:
            if self.first_wait is None:
                self.first_wait = seconds
                return False
            self.waits.append(seconds)
            return len(self.waits) >= beats

        credentials = self.state.credentials()
        assert credentials is not None
        plane = ControlPlane(Credentials(BaseUrl.parse(self.plane.url), AGENT_ID, credentials.api_key))
        keyring = Keyring(self.state, plane)
        self.captures.append(
            RequestedCaptures(
                self.state, plane, now=lambda: NOW, backoff=Backoff(lambda: 1.0), clock=lambda: self.clock[0]
            )
        )
        return AgentLoop(
            plane=plane,
            keyring=keyring,
            rotation=KeyRotation(self.state, plane, stores_key=stores_key, clock=lambda: self.clock[0]),
            offer_handler=OfferHandler(
                state=self.state,
                plane=plane,
                keyring=keyring,
                pipeline=BundleRunner(self.state, SAMPLE, self.environment),
                environment_id=ENVIRONMENT,
                now=lambda: NOW,
            ),
            captures=self.captures[-1],
            usage=ResourceMeter(self.folder),
            wait=wait,
            backoff=Backoff(lambda: 1.0),
            interval_s=interval_s,
        )

    def settle(self) -> None:
        self.agent().run_until_idle()

    @property
    def failure(self) -> str:
        """The detail of the last failure. Asserts that the stored and the reported detail are equal."""
        failed = self.state.progress().last_failed
        assert failed is not None
        assert self.plane.sent("POST", "/deployment")[-1].json["detail"] == failed.detail
        return failed.detail


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    plane = FakeControlPlane()
    yield plane
    plane.close()
    assert plane.violations == []


@pytest.fixture
def elsewhere() -> Iterator[FakeControlPlane]:
    """Start a server at another origin, and fail if an agent contacts it."""
    plane = FakeControlPlane()
    yield plane
    plane.close()
    assert plane.requests == []


@pytest.fixture
def node(tmp_path: Path, plane: FakeControlPlane, caplog: pytest.LogCaptureFixture) -> Iterator[NodeUnderTest]:
    caplog.set_level(logging.DEBUG)
    node = NodeUnderTest(tmp_path / "state", plane)
    node.enroll()
    yield node
    assert API_KEY not in caplog.text
