"""Runs ``byteor_cloud.captures.process`` as a child process and exchanges messages with it until it is finished."""

from __future__ import annotations

import base64
import json
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byteor.engine.replay import Cancelled, Decision, EffectFailed, Effects
from byteor_cloud.captures import sealing
from byteor_cloud.captures.process import BODY, SILENCE_S
from byteor_cloud.captures.spawning import Child
from byteor_cloud.worker.turns import Turn

_TICK_S = 0.5  # seconds between two calls of ``on_tick``
# Maximum bytes of one message. The audit of a replay lists up to 10,000 side effects, whose URLs may be long.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class ChildDied(RuntimeError):
    """The child exited without an outcome, reported an unexpected error, or sent a message that is not permitted.

    Also raised if a package of ops changed while children used it.
    """


class TookTooLong(Exception):
    """The child sent no message for too long and was killed."""


class Refused(Exception):
    """The child refused the request, for example because the capture is invalid. The message says why."""


@dataclass(slots=True)
class Progress:
    """The number of processed records and of all records of a replay.

    While the journals are being read, ``done`` is 0 and ``total`` is the number of records read so far.
    """

    done: int = 0
    total: int = 0


def run_in_child(
    request: Mapping[str, Any],
    *,
    scratch: Path,
    readable: Iterable[Path] = (),
    effects: Effects | None = None,
    on_tick: Callable[[Progress], bool] = lambda _: True,
    on_message: Callable[[Mapping[str, Any]], None] = lambda _: None,
    silence_s: float = SILENCE_S,
    turn: Turn | None = None,
    variables: Mapping[str, str] | None = None,
) -> Any:
    """Run the request in a child process and return its outcome.

    With a ``turn``, the process is paused between turns, but only on Linux. If the system supports all seals, the
    process can write only to ``scratch``, and read only files in ``scratch`` and ``readable`` and those that Python
    needs. The outcome of a trace is the body of a response.

    ``on_message`` is called with each message that has a ``verdict`` or a ``run``. ``variables`` are additional
    environment variables of the process.
    ``on_tick`` is called about twice a second. If it returns False, the process is killed and ``Cancelled`` is raised.
    Raises Refused or ChildDied, or TookTooLong if the process sent no message for ``silence_s``, not counting pauses.
    Errors of ``on_tick``, ``on_message`` and ``effects`` are raised as well, except EffectFailed.
    """
    environment = sealing.environment(TMPDIR=str(scratch), **(variables or {}))
    process = Child("byteor_cloud.captures.process", environment=environment)
    try:
        request = {**request, "readable": [str(path.resolve()) for path in readable]}
        return _converse(process, request, effects, on_tick, on_message, silence_s, turn)
    except (BrokenPipeError, ConnectionResetError):
        raise ChildDied("the process exited early") from None
    finally:
        if turn is not None:
            turn.detach()  # first, because the system may reuse the id of a killed process
        process.kill()


def _converse(
    process: Child,
    request: Mapping[str, Any],
    effects: Effects | None,
    on_tick: Callable[[Progress], bool],
    on_message: Callable[[Mapping[str, Any]], None],
    silence_s: float,
    turn: Turn | None,
) -> Any:
    progress = Progress()
    _send(process, request)
    for message in _messages(process, silence_s, time.monotonic if turn is None else turn.clock):
        if message is None:
            if not on_tick(progress):
                raise Cancelled
        elif isinstance(message, bytes):
            return message
        elif "progress" in message:
            progress.done, progress.total = message["progress"]
        elif "verdict" in message or "run" in message:
            on_message(message)
        elif "dies_with_parent" in message:
            if turn is not None:  # a process that was paused earlier would outlive a killed worker
                turn.attach(process.pid)
        elif "effect" in message and effects is not None:
            _send(process, _handle_effect(effects, **message["effect"]))
        elif "outcome" in message:
            return message["outcome"]
        elif "refused" in message:
            raise Refused(message["refused"])
        else:
            raise ChildDied(message.get("crashed", "an unknown message"))
    raise ChildDied("the process exited without an outcome")


def _handle_effect(effects: Effects, stage: str, op: str, payload: str | None = None) -> dict[str, Any]:
    if payload is None:
        return {"decision": str(effects.decide(stage, op))}
    # Check again: an op from a package could request a side effect although its process was told that it is denied.
    if effects.decide(stage, op) is not Decision.ALLOW:
        raise ChildDied("the process requested a side effect that is not permitted")
    try:
        effects.perform(stage, op, base64.b64decode(payload))
    except EffectFailed as error:
        return {"failed": str(error)}
    return {"failed": None}


def _send(process: Child, message: Mapping[str, Any]) -> None:
    process.socket.sendall(json.dumps(message).encode() + b"\n")


def _messages(process: Child, silence_s: float, clock: Callable[[], float]) -> Iterator[dict[str, Any] | bytes | None]:
    """Yield each message, as bytes if it is the body of a response, and None about every ``_TICK_S``.

    Raises TookTooLong after ``silence_s`` of ``clock`` without a message, and ChildDied for a message that is too long.
    """
    poll = select.poll()
    poll.register(process.socket.fileno(), select.POLLIN)
    last_message, last_tick = clock(), time.monotonic()
    pending: list[bytes] = []
    while True:
        silent_s, now = clock() - last_message, time.monotonic()
        if silent_s > silence_s:
            raise TookTooLong(f"the process sent nothing for {silence_s:g} s and was killed")
        if now >= last_tick + _TICK_S:
            last_tick = now
            yield None
        wait = min(_TICK_S, silence_s - silent_s + 0.01)
        if not poll.poll(wait * 1000):
            continue
        chunk = process.socket.recv(1 << 20)
        if not chunk:
            return
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*pending, lines[0]])
            pending = []
        pending.append(rest)
        if sum(map(len, pending)) > _MAX_MESSAGE_BYTES:
            raise ChildDied("the process sent a message that is too long")
        for line in lines:
            yield line.removeprefix(BODY) if line.startswith(BODY) else json.loads(line)
        last_message = clock()  # not earlier, because the child may wait while the caller handles its message
