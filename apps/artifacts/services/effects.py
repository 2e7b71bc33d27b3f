"""Executes the side effects of replays with time limits: sends HTTP requests and runs programs.

A side effect only succeeds or fails. Its output does not change the record.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from socket import SHUT_RDWR
from threading import Timer

from byteor.engine.allowlist import Url
from byteor.engine.compiler import split_op
from byteor.engine.replay import Decision, EffectFailed, SideEffectPolicy

TIMEOUT_S = 10.0  # time limit of one side effect, in seconds
# The seconds of an execute replay, without its pauses, after which its side effects fail.
TOTAL_S = 900.0
_MAX_STDERR = 2_000  # bytes of a program's error output that an error message quotes


@dataclass(frozen=True, slots=True)
class Executor:
    """Executes side effects until ``clock`` reaches ``until``. Callers first check ``decide``, which asks ``policy``.

    Programs run with ``folder`` as their working directory.
    """

    policy: SideEffectPolicy
    folder: Path
    replay_id: str
    until: float
    timeout_s: float = TIMEOUT_S
    # Called before each side effect. It waits or raises if another worker may have taken over the replay.
    may_act: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic

    def decide(self, stage: str, op: str) -> Decision:
        """Return the policy's decision about the side effect of a stage."""
        return self.policy.decide(stage, op)

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        """Send the HTTP request or run the program that ``op`` names.

        Raises EffectFailed, OSError or ``may_act``'s error.
        """
        self.may_act()
        left = min(self.timeout_s, self.until - self.clock())
        if left <= 0:
            raise EffectFailed("the side effects of this replay took too long in total")
        deadline = time.monotonic() + left
        kind, target = split_op(op)
        match kind, target:
            case "http_post", str(url):
                self._post(Url.parse(url), stage, payload, deadline)
            case "exec", str(command):
                self._run(command.split("|"), stage, payload, deadline)
            case _:
                raise EffectFailed(f"the server cannot execute {kind} side effects")

    def _post(self, url: Url, stage: str, payload: bytes, deadline: float) -> None:
        """Send a POST request. Follow no redirects, use no proxy or credentials of the worker, and read no body."""
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = kind(url.host, url.port, timeout=deadline - time.monotonic())
        headers = {
            "Content-Type": "application/octet-stream",
            "User-Agent": "byteor-cloud",
            "X-ByteOr-Replay": self.replay_id,
            "X-ByteOr-Stage": stage,
            "Connection": "close",
        }
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        status: int | None
        failure = ""
        try:
            connection.connect()
            # The connection's timeout only limits each operation. The timer limits the time of the whole response.
            with _limited(connection, deadline):
                connection.request("POST", target, payload, headers)
                status = connection.getresponse().status
        except (OSError, HTTPException, ValueError) as error:
            # The deadline is checked before the status below, because a connection that the timer shut down fails with
            # various errors or not at all.
            status, failure = None, type(error).__name__
        finally:
            connection.close()
        if time.monotonic() >= deadline:
            raise EffectFailed(f"no response within the time limit (at most {self.timeout_s:g} s)")
        if status is None:
            raise EffectFailed(f"no response: {failure}")
        if not 200 <= status < 300:
            raise EffectFailed(f"the response has the status {status}")

    def _run(self, command: list[str], stage: str, payload: bytes, deadline: float) -> None:
        """Run a program without a shell or the worker's environment variables, and finally kill its process group."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "BYTEOR_REPLAY": self.replay_id,
            "BYTEOR_STAGE": stage,
        }
        with tempfile.TemporaryFile() as stdin:  # not a pipe, which would have to be written while the program runs
            stdin.write(payload)
            stdin.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603  the policy has permitted this program
                    command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.folder,
                    env=environment, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise EffectFailed(f"the program does not start: {type(error).__name__}") from error
        assert process.stderr is not None  # noqa: S101  stderr is a pipe
        try:
            message = _read_stderr(process.stderr.fileno(), deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise EffectFailed(
                f"the program exceeded the time limit (at most {self.timeout_s:g} s) and was killed"
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stderr.close()
        if code != 0:
            error_output = message.decode(errors="replace").strip() or "no error output"
            raise EffectFailed(f"the program failed with exit code {code}: {error_output}")


@contextmanager
def _limited(connection: HTTPConnection, deadline: float) -> Iterator[None]:
    """Shut the connection down at the deadline if the block is still running."""
    stop = Timer(max(0.0, deadline - time.monotonic()), _hang_up, [connection])
    stop.start()
    try:
        yield
    finally:
        stop.cancel()


def _hang_up(connection: HTTPConnection) -> None:
    """Shut the connection down, so that another thread that reads from it returns."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(SHUT_RDWR)


def _read_stderr(source: int, deadline: float) -> bytes:
    """Read until all writers have closed the pipe. Return the first ``_MAX_STDERR`` bytes. Raises TimeoutError."""
    kept = b""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        chunk = os.read(source, 65_536)
        if not chunk:
            return kept
        kept += chunk[: _MAX_STDERR - len(kept)]
    raise TimeoutError
