"""The ids and keys of the simulated agents: enrolled through the API, or read from the file of an earlier run."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .measured import Measured
from .pool import Exchange, Pool
from .wire import Response, write_request

_MAX_IN_FLIGHT = 32
_TRIES = 10


class SimulationError(Exception):
    """The simulation cannot start or continue."""


@dataclass(frozen=True, slots=True)
class Server:
    """The address of a control plane, and the prefix of its paths."""

    host: str
    address: tuple[str, int]
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Server:
        """Parse a URL such as http://127.0.0.1:8080. Raises SimulationError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SimulationError(f"{url!r} is not a URL") from None
        if parts.scheme == "https":
            raise SimulationError("the simulator supports only plain HTTP: use the server's address behind the proxy")
        if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise SimulationError(f"{url!r} must look like http://127.0.0.1:8080")
        return cls(parts.netloc, (parts.hostname, port or 80), parts.path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class Fleet:
    """The ids and keys of enrolled agents, and their environment's heartbeat interval."""

    interval_s: float
    agents: list[tuple[str, str]]

    def save(self, path: Path) -> None:
        """Write the fleet to a new file that only its owner can read."""
        lines = [json.dumps({"interval_s": self.interval_s}), *(f"{agent_id} {key}" for agent_id, key in self.agents)]
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")

    @classmethod
    def load(cls, path: Path, count: int) -> Fleet:
        """Read the first ``count`` agents of a file that ``save`` wrote. Raises SimulationError."""
        try:
            first, *lines = path.read_text().splitlines()
            agents = [(agent_id, key) for agent_id, key in (line.split(" ") for line in lines[:count])]
            interval_s = float(json.loads(first)["interval_s"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            # The error's text could quote a key.
            raise SimulationError(f"{path} is not a readable file of agents' keys ({type(error).__name__})") from None
        if len(agents) < count:
            found = "1 agent" if len(agents) == 1 else f"{len(agents)} agents"
            raise SimulationError(f"{path} has only {found}: lower --agents or use another --keys file")
        return cls(interval_s, agents)


def enroll(
    pool: Pool,
    server: Server,
    environment: str,
    token: str,
    count: int,
    *,
    measured: Measured,
    progress: Callable[[int], None],
) -> Fleet:
    """Enroll ``count`` agents with one token through the API. Raises SimulationError if that fails."""
    run = secrets.token_hex(4)  # agents' names must be unique in an environment, even if several runs use the same seed
    path = f"{server.prefix}{environment}/agents"
    agents: list[tuple[str, str] | None] = [None] * count
    interval_s = 0.0
    tries = [0] * count
    todo = list(range(count - 1, -1, -1))
    later: list[tuple[float, int]] = []
    done = 0
    while done < count:
        now = time.monotonic()
        todo += [number for at, number in later if at <= now]
        later = [(at, number) for at, number in later if at > now]
        while todo and pool.in_flight < _MAX_IN_FLIGHT:
            number = todo.pop()
            # After a lost response the name may be in use already, so each attempt uses another name.
            name = f"sim-{run}-{number:06d}" + (f"-{tries[number]}" if tries[number] else "")
            body = json.dumps({"name": name, "hostname": f"{name}.simulated", "labels": {"simulated": run}}).encode()
            request = write_request("POST", path, host=server.host, token=token, body=body)
            pool.submit(Exchange(number, request, now))
        for exchange in pool.poll(0.1):
            response, number = exchange.response, exchange.owner
            wait_s = response.retry_after_s if response is not None else None
            took_s = exchange.done_at - exchange.sent_at
            measured.count("enrollment", exchange.status, exchange.failure, took_s, has_retry_after=wait_s is not None)
            if response is not None and response.status == 201:
                enrolled = json.loads(response.body)
                agents[number] = (enrolled["agent_id"], enrolled["api_key"])
                interval_s = enrolled["heartbeat_interval_s"]
                done += 1
            else:
                tries[number] += 1
                _check_retryable(exchange, server, done, count, is_last=tries[number] >= _TRIES)
                later.append((time.monotonic() + (wait_s or 1.0) * (1 + secrets.randbelow(100) / 100), number))
        progress(done)
    return Fleet(interval_s, [agent for agent in agents if agent is not None])


def _check_retryable(exchange: Exchange, server: Server, done: int, count: int, *, is_last: bool) -> None:
    """Raise SimulationError unless the enrollment should be retried."""
    response = exchange.response
    if response is None:
        if done == 0 or is_last:
            raise SimulationError(f"a request to {server.host} failed: {exchange.failure}")
        return
    if is_last or (response.status < 500 and response.status != 429):
        raise SimulationError(
            f"the server rejected an enrollment ({done} of {count} succeeded): {response.status} {_detail(response)}"
        )


def _detail(response: Response) -> str:
    try:
        return str(json.loads(response.body)["detail"])
    except (ValueError, KeyError, TypeError):
        return "no explanation"


def documents_boot_id(pool: Pool, server: Server) -> bool:
    """Return whether heartbeats have a ``boot_id`` in the server's OpenAPI document. Raises SimulationError."""
    extra = "Accept: application/vnd.oai.openapi+json\r\n"
    request = write_request("GET", f"{server.prefix}/api/schema", host=server.host, extra=extra)
    pool.submit(Exchange(0, request, time.monotonic()))
    while not (done := pool.poll(0.1)):
        pass
    (exchange,) = done
    if exchange.response is None:
        raise SimulationError(f"a request to {server.host} failed: {exchange.failure}")
    try:
        document = json.loads(exchange.response.body)
        return "boot_id" in document["components"]["schemas"]["HeartbeatRequest"]["properties"]
    except (ValueError, KeyError, TypeError):
        return False
