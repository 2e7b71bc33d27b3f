"""The scenario ``poll``: all agents wait in long polls, one deployment is offered to all of them, and the time is
measured until each agent has received the offer.

A waiting agent occupies a connection, so a process holds at most ``AGENTS_PER_PROCESS`` agents, and larger fleets are
split between processes. The parent process requests the deployment when nearly all agents are waiting, or after a
maximum time.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection, wait
from typing import Any

from .fleet import Fleet, Server, SimulationError
from .measured import Summary, Told
from .pool import Exchange, Pool
from .wire import write_request

# Each connection is an open file, and systems limit the open files of a process.
AGENTS_PER_PROCESS = 10_000
# The deployment is requested when this share of the agents is waiting. At any moment, a few send heartbeats instead.
READY_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment of one config bundle to all agents of an environment.

    ``path`` is the API path of the environment's deployments. ``token`` is a user token or an organization API key.
    """

    path: str
    config_bundle_id: str
    token: str

    def request(self, server: Server) -> tuple[str, float]:
        """Request the deployment. Return its id and the monotonic time of the request. Raises SimulationError."""
        body = {"config_bundle_id": self.config_bundle_id, "target": {"all": True}, "strategy": {"kind": "all_at_once"}}
        request = write_request(
            "POST", server.prefix + self.path, host=server.host, token=self.token, body=json.dumps(body).encode()
        )
        pool = Pool(server.address, 1)
        try:
            began = time.monotonic()
            pool.submit(Exchange(0, request, began))
            while not (done := pool.poll(0.1)):
                pass
        finally:
            pool.close()
        response = done[0].response
        if response is None or response.status != 201:
            reason = done[0].failure
            if response is not None:
                reason = f"{response.status} {response.body[:500].decode(errors='replace')}"
            raise SimulationError(f"the request for the deployment failed: {reason}")
        return str(json.loads(response.body)["id"]), began


@dataclass
class Audience:
    """The agents of one process that wait for the deployment, and the messages to and from the parent process."""

    agents: int
    channel: Connection
    heard: dict[str, dict[int, tuple[float, str]]] = field(default_factory=dict)
    """For each deployment, the agents that received its offer, with the monotonic time and the ``offered_at``."""
    deployment_id: str | None = None
    _is_ready: bool = False

    def note(self, machine: int, deployment_id: str, offered_at: str, at: float) -> None:
        """Note that an agent has received an offer."""
        self.heard.setdefault(deployment_id, {}).setdefault(machine, (at, offered_at))

    def is_told(self, waiting: int) -> bool:
        """Return whether all agents know the deployment. Report once that nearly all of them are ``waiting``."""
        if not self._is_ready and waiting >= READY_SHARE * self.agents:
            self._is_ready = True
            self.channel.send(None)
        if self.deployment_id is None and self.channel.poll():
            self.deployment_id = self.channel.recv()
        return self.deployment_id is not None and len(self.heard.get(self.deployment_id, ())) == self.agents

    def times(self) -> list[tuple[float, float]]:
        """Return the monotonic times when the deployment was received and offered, for each agent that received it."""
        epoch = time.time() - time.monotonic()
        heard = self.heard.get(self.deployment_id or "", {})
        return [(at, datetime.fromisoformat(offered_at).timestamp() - epoch) for at, offered_at in heard.values()]


type Simulate = Callable[[Fleet, Audience], Summary]
"""Runs a part of the fleet until all of its agents are told, or until the time for the run is over."""


def run(
    fleet: Fleet, server: Server, deployment: Deployment, simulate: Simulate, *, within_s: float
) -> tuple[list[Summary], Told]:
    """Run the fleet in child processes. Request the deployment when nearly all agents wait, or after ``within_s``.

    Return the results of each process, and the times until the agents were told. Raises SimulationError.
    """
    parts = [
        fleet.agents[start : start + AGENTS_PER_PROCESS] for start in range(0, len(fleet.agents), AGENTS_PER_PROCESS)
    ]
    with _children([Fleet(fleet.interval_s, part) for part in parts], simulate) as channels:
        deadline, unready = time.monotonic() + within_s, list[Any](channels)
        while unready and (left_s := deadline - time.monotonic()) > 0:
            for channel in wait(unready, left_s):
                _receive(channel)
                unready.remove(channel)
        deployment_id, began = deployment.request(server)
        for channel in channels:
            channel.send(deployment_id)
        summaries, times = [], list[tuple[float, float]]()
        for channel in channels:
            while (result := _receive(channel)) is None:  # a late report that the agents of the process are waiting
                pass
            summaries.append(result[0])
            times += result[1]
    told = Told(len(fleet.agents), sorted(at - began for at, _ in times), sorted(at - since for at, since in times))
    return summaries, told


def _receive(channel: Any) -> Any:
    try:
        return channel.recv()
    except EOFError:
        raise SimulationError("a process of the simulator has died") from None


@contextmanager
def _children(fleets: Sequence[Fleet], simulate: Simulate) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("fork")
    processes, channels = [], []
    try:
        for fleet in fleets:
            ours, theirs = context.Pipe()
            process = context.Process(target=_run_part, args=(fleet, theirs, simulate), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            channels.append(ours)
        yield channels
    finally:
        for channel in channels:
            channel.close()
        for process in processes:
            process.terminate()
            process.join()


def _run_part(fleet: Fleet, channel: Connection, simulate: Simulate) -> None:
    audience = Audience(len(fleet.agents), channel)
    with suppress(KeyboardInterrupt, BrokenPipeError, EOFError):
        summary = simulate(fleet, audience)
        channel.send((summary, audience.times()))
