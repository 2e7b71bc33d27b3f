"""The child process that unpacks, replays or traces a capture, or tests fixtures.

It has no Django, secrets or network, and cannot start other programs.

``python -m byteor_cloud.captures.process`` reads one JSON request from its first input line and writes JSON lines:
``dies_with_parent``, ``progress``, ``effect`` (for each of which it then reads one input line), ``verdict`` or ``run``
(one for each item of the request), and finally ``outcome``, ``refused`` or ``crashed``. The outcome of a trace
is a line that starts with ``BODY``.

The process limits and seals itself (``sealing``) before it reads the capture. The process exits when its input is
closed. On Linux, the kernel also kills it when the process that started it dies, even while it is stopped. If an op
blocks the interpreter, the kernel kills the process after ``SILENCE_S`` of processor time without a message. Time in
which the process is stopped does not count.
"""

from __future__ import annotations

import base64
import ctypes
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from byteor.engine.compiler import Ops, PipelineSpec, decode
from byteor.engine.replay import (
    BadInput,
    Decision,
    EffectFailed,
    IncidentBundle,
    RejectedBundle,
    ReplayMode,
    Unsupported,
    parameters_of_replay,
    replay,
    trace,
    validate_incident,
)
from byteor_cloud.captures.files import build_capture
from byteor_cloud.captures.fixtures import PARAMETER_SOURCES, check_fixture, judge_fixtures, run_fixtures, side_of
from byteor_cloud.captures.host_share import lower_priority
from byteor_cloud.captures.sealing import MEMORY_BYTES, limit, seal

SILENCE_S = 900  # seconds; far longer than the expected time between two progress lines of a large replay
_PR_SET_PDEATHSIG = 1
_PROGRESS_STEPS = 200  # the number of steps in which a replay reports progress; more would keep the parent process busy
BODY = b"body "
MAX_FRAMES = 2 * 1024 * 1024  # about the most Base64 characters of output frames in a replay's outcome
# The most seconds of processor time. For other kinds, the limit that matters is ``SILENCE_S`` between two messages.
_PROCESSOR_S = {"build": 120, "trace": 60, "check_fixture": 300}
_MOST_PROCESSOR_S = 24 * 3600
_FILE_BYTES = 1 << 30  # the size limit of each file that the process writes


class _Parent:
    """The lines to and from the parent process."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._lock = Lock()
        self._shown = -1
        # Output of ops must not mix with these lines or leak payloads into a log, and ops must not read the input.
        self._output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        self._input = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, sys.stdout.fileno())
        os.dup2(nothing, sys.stdin.fileno())
        os.dup2(nothing, sys.stderr.fileno())
        _limit_silence()

    def receive_request(self) -> Any:
        """Return the request, or exit if there is none. Starts no thread, because ``seal`` would not cover it."""
        line = self._input.readline()
        if not line:
            os._exit(1)
        return json.loads(line)

    def watch(self) -> None:
        """Start a thread that reads the input and exits the process when the input is closed."""
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while line := self._input.readline():
            self._lines.put(line)
        os._exit(1)  # the parent is dead or no longer needs the result

    def receive(self) -> Any:
        return json.loads(self._lines.get())

    def send(self, **message: Any) -> None:
        self._write(json.dumps(message).encode())

    def send_body(self, body: bytes) -> None:
        """Send the body of a response: JSON without line breaks, or no bytes."""
        self._write(BODY + body)

    def _write(self, line: bytes) -> None:
        _limit_silence()
        with self._lock:
            self._output.write(line + b"\n")
            self._output.flush()

    def progress(self, done: int, total: int) -> None:
        step = done * _PROGRESS_STEPS // total if done and total else 0
        if step != self._shown:
            self._shown = step
            self.send(progress=[done, total])

    # -- side effects, which the parent permits and performs

    def decide(self, stage: str, op: str) -> Decision:
        self.send(effect={"stage": stage, "op": op})
        return Decision(self.receive()["decision"])

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        self.send(effect={"stage": stage, "op": op, "payload": base64.b64encode(payload).decode()})
        if (failed := self.receive()["failed"]) is not None:
            raise EffectFailed(failed)


def _limit_silence() -> None:
    """Have the kernel kill the process after another ``SILENCE_S`` of processor time, even if no Python code runs."""
    signal.setitimer(signal.ITIMER_PROF, SILENCE_S)


def _die_with_parent() -> bool:
    """Have the kernel kill this process when its parent dies. Returns False if the kernel cannot do that."""
    return sys.platform == "linux" and not ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Handle one request."""
    os.chdir(tempfile.gettempdir())
    parent = _Parent()
    # If the parent died before this call, its end of the connection is closed: ``send`` or ``receive_request`` fails.
    if _die_with_parent():
        parent.send(dies_with_parent=True)
    request = parent.receive_request()
    kind = request["kind"]
    if kind != "replay":  # an API request may be waiting for the result, but other requests must not become slower
        lower_priority()
    try:
        ops = Ops() if kind == "build" else Ops.installed()  # before sealing, which may forbid what packages need
        limit(processor_s=_PROCESSOR_S.get(kind, _MOST_PROCESSOR_S), file_bytes=_FILE_BYTES)
        seal(readable=map(Path, request["readable"]), writable=[Path.cwd()])
        parent.watch()
        _HANDLERS[kind](request, ops, parent)
    except (BadInput, RejectedBundle, Unsupported) as error:
        parent.send(refused=str(error))
    except MemoryError:
        parent.send(refused=f"more than {MEMORY_BYTES >> 20} MiB of memory would be needed")
    except Exception as error:
        parent.send(crashed=f"{type(error).__name__}: {error}")


def _build(request: Mapping[str, Any], _: Ops, parent: _Parent) -> None:
    with open(request["archive"], "rb") as source:
        build_capture(source, Path(request["folder"]))
    parent.send(outcome=None)


def _check_fixture(request: Mapping[str, Any], ops: Ops, parent: _Parent) -> None:
    parent.send(outcome=check_fixture(request, ops, parent.progress))


def _judge_fixtures(request: Mapping[str, Any], ops: Ops, parent: _Parent) -> None:
    judge_fixtures(request, ops, parent.progress, parent.send)
    parent.send(outcome=None)


def _run_fixtures(request: Mapping[str, Any], ops: Ops, parent: _Parent) -> None:
    run_fixtures(request, ops, parent.progress, parent.send)
    parent.send(outcome=None)


def _run_capture(request: Mapping[str, Any], installed: Ops, parent: _Parent) -> None:
    bundle = validate_incident(Path(request["folder"]))
    sources = {name: request[name] for name in PARAMETER_SOURCES if name in request}
    config = parameters_of_replay(bundle, decode(request["spec_kv"]), **sources)
    side = side_of(request["spec_kv"], config, installed)
    if request["kind"] == "trace":
        parent.send_body(_trace(bundle, side.spec, config, side.ops, request))
    else:
        parent.send(outcome=_replay(bundle, side.spec, config, side.ops, request, parent))


def _replay(
    bundle: IncidentBundle, spec: PipelineSpec, config: Any, ops: Any, request: Mapping[str, Any], parent: _Parent
) -> dict[str, Any]:
    outcome = replay(
        bundle,
        created_unix_ms=request["created_unix_ms"],
        bundle_dir=request["bundle_dir"],
        policy_env=request["policy_env"],
        spec=spec,
        stage_config=config,
        ops=ops,
        mode=ReplayMode(request["mode"]),
        effects=parent if request["performs"] else None,
        approval_provided=request["approval_provided"],
        journal_lane=request["journal_lane"],
        last_n=request["last_n"],
        progress=parent.progress,
    )
    named = {each.name: getattr(outcome, each.name) for each in dataclasses.fields(outcome)}
    return {**named, "stopped": None, "egress_frames": _encoded(outcome.egress_frames)}


def _encoded(frames: Mapping[str, bytes | None]) -> dict[str, str | None]:
    """Return output frames by egress in Base64.

    An egress whose frames were not kept is None. If the total exceeds ``MAX_FRAMES`` at an egress, it and all later
    egresses are None as well.
    """
    encoded: dict[str, str | None] = {}
    left = MAX_FRAMES
    for name, kept in frames.items():
        left -= len(kept or b"") * 4 // 3
        encoded[name] = base64.b64encode(kept).decode() if kept is not None and left >= 0 else None
    return encoded


def _trace(bundle: IncidentBundle, spec: PipelineSpec, config: Any, ops: Any, request: Mapping[str, Any]) -> bytes:
    """Return the body of a response with a page of the trace, or no bytes if the first page contains no record."""
    indexes = {lane: Path(path) for lane, path in request["indexes"].items()}
    found = trace(
        bundle,
        request["sequence"],
        spec=spec,
        stage_config=config,
        ops=ops,
        ingress=request["ingress"],
        indexes=indexes,
        after=request["after"],
        max_bytes=request["max_bytes"],
    )
    if not found["records"] and request["after"] is None:
        return b""
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


_HANDLERS = {
    "build": _build,
    "replay": _run_capture,
    "trace": _run_capture,
    "check_fixture": _check_fixture,
    "judge_fixtures": _judge_fixtures,
    "run_fixtures": _run_fixtures,
}


if __name__ == "__main__":
    main()
