"""The child process that unpacks, replays or traces one capture, without Django, secrets, network or programs.

``python -m byteor_cloud.capture_process`` reads one JSON request from its first input line and writes JSON lines:
``dies_with_parent``, ``progress``, ``effect`` (answered by one input line each), and at last ``outcome``, ``refused``
or ``crashed``. The process never outlives the process that started it: it ends when its input is closed, and on Linux
the kernel kills it, even while it is stopped. If an op holds the interpreter, the process ends once it has computed for
``SILENCE_S`` without a message. Time in which it is stopped does not count.
"""

from __future__ import annotations

import base64
import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from byteor_cloud.capture_files import build_capture
from byteor_cloud.engine.compiler import Ops, PipelineSpec, decode
from byteor_cloud.engine.replay import (
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
from byteor_cloud.host_share import lower_priority

SILENCE_S = 900  # far more than a hundredth of the most work of a replay takes on a slow machine
_PR_SET_PDEATHSIG = 1
_PROGRESS_STEPS = 200  # the most progress lines of a replay, so that its parent is not kept busy
# Audit events of what a stage must never do: side effects are performed by the parent process.
_FORBIDDEN = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
)  # fmt: skip


class Forbidden(RuntimeError):
    """Something tried to reach out of this process."""


def seal() -> None:
    """Make connections and programs impossible from now on, also for ops of installed packages."""

    def refuse(event: str, _: Any) -> None:
        if event in _FORBIDDEN:
            raise Forbidden(f"{event} is not permitted in a replay")

    sys.addaudithook(refuse)


class _Parent:
    """The lines to and from the parent process."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._lock = Lock()
        self._shown = -1
        # What an op prints must neither mix with these lines nor show payloads in a log, and it must not read them.
        self._output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        self._input = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, sys.stdout.fileno())
        os.dup2(nothing, sys.stdin.fileno())
        _limit_silence()
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while line := self._input.readline():
            self._lines.put(line)
        os._exit(1)  # the parent is dead or no longer wants the result

    def receive(self) -> Any:
        return json.loads(self._lines.get())

    def send(self, **message: Any) -> None:
        _limit_silence()
        with self._lock:
            self._output.write(json.dumps(message).encode() + b"\n")
            self._output.flush()

    def progress(self, done: int, total: int) -> None:
        step = done * _PROGRESS_STEPS // total if done and total else 0
        if step != self._shown:
            self._shown = step
            self.send(progress=[done, total])

    # -- the side effects, which the parent decides about and performs

    def decide(self, stage: str, op: str) -> Decision:
        self.send(effect={"stage": stage, "op": op})
        return Decision(self.receive()["decision"])

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        self.send(effect={"stage": stage, "op": op, "payload": base64.b64encode(payload).decode()})
        if (failed := self.receive()["failed"]) is not None:
            raise EffectFailed(failed)


def _limit_silence() -> None:
    """Let the kernel end the process, even if no Python code runs, once it has computed for ``SILENCE_S`` from now."""
    signal.setitimer(signal.ITIMER_PROF, SILENCE_S)


def _die_with_parent() -> bool:
    """Let the kernel kill this process when its parent is dead. Returns False if the kernel cannot do that."""
    return sys.platform == "linux" and not ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answer one request."""
    parent = _Parent()
    # A parent that died before this was called has closed the input.
    if _die_with_parent():
        parent.send(dies_with_parent=True)
    request = parent.receive()
    if request["kind"] != "replay":  # a request waits for it, and others of the host must not wait longer for that
        lower_priority()
    try:
        answer = _build if request["kind"] == "build" else _run
        parent.send(outcome=answer(request, parent))
    except (BadInput, RejectedBundle, Unsupported) as error:
        parent.send(refused=str(error))
    except Exception as error:
        parent.send(crashed=f"{type(error).__name__}: {error}")


def _build(request: Mapping[str, Any], _: _Parent) -> Any:
    seal()
    with open(request["archive"], "rb") as source:
        build_capture(source, Path(request["folder"]))


def _run(request: Mapping[str, Any], parent: _Parent) -> Any:
    bundle = validate_incident(Path(request["folder"]))
    spec = decode(request["spec_kv"])
    sources = ("stage_config", "overrides", "only_fitting", "fallback")
    config = parameters_of_replay(bundle, spec, **{name: request[name] for name in sources if name in request})
    installed = Ops.installed()
    ops = {op: process for _, op in spec.stages if (process := installed.process(op)) is not None}
    seal()
    if request["kind"] == "trace":
        return _trace(bundle, spec, config, ops, request)
    return _replay(bundle, spec, config, ops, request, parent)


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
    frames = {
        name: kept if kept is None else base64.b64encode(kept).decode() for name, kept in outcome.egress_frames.items()
    }
    return {**named, "stopped": None, "egress_frames": frames}


def _trace(bundle: IncidentBundle, spec: PipelineSpec, config: Any, ops: Any, request: Mapping[str, Any]) -> Any:
    indexes = {lane: Path(path) for lane, path in request["indexes"].items()}
    return trace(
        bundle,
        request["sequence"],
        spec=spec,
        stage_config=config,
        ops=ops,
        ingress=request["ingress"],
        indexes=indexes,
    )


if __name__ == "__main__":
    main()
