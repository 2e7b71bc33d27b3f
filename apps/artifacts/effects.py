"""Side effects of an execute replay, performed: one HTTP request or one process for a record, strictly bounded.

What comes back is looked at for success only, as on an agent: the record goes on unchanged.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from socket import SHUT_RDWR
from threading import Timer

from byteor_cloud.engine.allowlist import Url
from byteor_cloud.engine.compiler import split_op
from byteor_cloud.engine.replay import Decision, EffectFailed, Gate

TIMEOUT_S = 10.0  # of one side effect
TOTAL_S = 900.0  # of all those of one replay: a worker's slot is not held for ever
_SAID = 2_000  # how much of what a program complains is kept


@dataclass(frozen=True, slots=True)
class Executor:
    """Decides by ``gate``; performs until ``until`` (``time.monotonic``). Programs run in ``folder``."""

    gate: Gate
    folder: Path
    replay_id: str
    until: float
    timeout_s: float = TIMEOUT_S
    # Called before each side effect; raises, or waits, when somebody else may have it performed.
    may_act: Callable[[], None] = lambda: None

    def decide(self, stage: str, op: str) -> Decision:
        """As the gate says."""
        return self.gate.decide(stage, op)

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        """One request, one process. Raises EffectFailed."""
        self.may_act()
        deadline = min(time.monotonic() + self.timeout_s, self.until)
        if deadline <= time.monotonic():
            raise EffectFailed("the side effects of this replay have taken too long altogether")
        kind, target = split_op(op)
        match kind, target:
            case "http_post", str(url):
                self._post(Url.parse(url), stage, payload, deadline)
            case "exec", str(command):
                self._run(command.split("|"), stage, payload, deadline)
            case _:
                raise EffectFailed(f"nobody knows how to perform {kind}")

    def _post(self, url: Url, stage: str, payload: bytes, deadline: float) -> None:
        """No redirect is followed, no proxy or credential of the environment used, no body read."""
        left = deadline - time.monotonic()
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = kind(url.host, url.port, timeout=left)
        headers = {
            "Content-Type": "application/octet-stream",
            "User-Agent": "byteor-cloud",
            "X-ByteOr-Replay": self.replay_id,
            "X-ByteOr-Stage": stage,
            "Connection": "close",
        }
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # The timeout is for each read: this one is for the answer as a whole, however slowly it trickles in.
        stop, trouble = Timer(left, _hang_up, [connection]), ""
        try:
            connection.connect()
            stop.start()
            connection.request("POST", target, payload, headers)
            status: int | None = connection.getresponse().status
        except (OSError, HTTPException, ValueError) as error:
            # Looked at after the clock: a connection that was hung up breaks in many ways, or seems to be complete.
            status, trouble = None, type(error).__name__
        finally:
            stop.cancel()
            connection.close()
        if time.monotonic() >= deadline:
            raise EffectFailed(f"no answer within {self.timeout_s:g} s")
        if status is None:
            raise EffectFailed(f"no answer: {trouble}")
        if not 200 <= status < 300:
            raise EffectFailed(f"answered {status}")

    def _run(self, command: list[str], stage: str, payload: bytes, deadline: float) -> None:
        """No shell, nothing of the worker's environment; its output is not kept, and its whole group ends with it."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "BYTEOR_REPLAY": self.replay_id,
            "BYTEOR_STAGE": stage,
        }
        with tempfile.TemporaryFile() as stdin:  # a file: nobody has to feed a pipe
            stdin.write(payload)
            stdin.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603  the gate let this very path through
                    command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.folder,
                    env=environment, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise EffectFailed(f"it does not start: {type(error).__name__}") from error
        assert process.stderr is not None  # noqa: S101  a pipe was asked for
        try:
            said = _read(process.stderr.fileno(), deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise EffectFailed(f"it had not ended after {self.timeout_s:g} s and was killed") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stderr.close()
        if code != 0:
            raise EffectFailed(f"it ended with {code}: {said.decode(errors='replace').strip() or 'no message'}")


def _hang_up(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(SHUT_RDWR)


def _read(source: int, deadline: float) -> bytes:
    """The start of what comes until the last writer closes it; the rest is thrown away. Raises TimeoutError."""
    kept = b""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(source, 65_536)
        if not chunk:
            return kept
        kept += chunk[: _SAID - len(kept)]
    raise TimeoutError
