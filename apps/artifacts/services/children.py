"""Starts ``byteor_cloud.captures.process``, and answers it until it has ended or is no longer wanted."""

from __future__ import annotations

import base64
import json
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byteor.engine.replay import Cancelled, EffectFailed, Effects
from byteor_cloud.captures import sealing
from byteor_cloud.captures.process import BODY, SILENCE_S
from byteor_cloud.captures.spawning import Child
from byteor_cloud.worker.turns import Turn

_TICK_S = 0.5
_MOST_BYTES = 64 * 1024 * 1024  # of a message; a replay's audit lists up to 10,000 side effects with long addresses


class ChildDied(RuntimeError):
    """The child ended without an answer, or its answer says that something unexpected went wrong."""


class TookTooLong(Exception):
    """The child sent no message for too long, and was killed."""


class Refused(Exception):
    """The capture or an argument cannot be used; the text says why."""


@dataclass(slots=True)
class Progress:
    """How many of a replay's records are processed. Both numbers are 0 until the records are counted."""

    done: int = 0
    total: int = 0


def run_apart(
    request: Mapping[str, Any],
    *,
    scratch: Path,
    readable: Iterable[Path] = (),
    effects: Effects | None = None,
    on_tick: Callable[[Progress], bool] = lambda _: True,
    silence_s: float = SILENCE_S,
    turn: Turn | None = None,
) -> Any:
    """Run the request in a process of its own; return its outcome. With a ``turn`` it is paused between its turns.

    The process can read only the folders and files ``readable``, and write only to ``scratch``. The outcome of a trace
    is the body of a response.

    ``on_tick`` is called about twice a second; once it returns False the process is killed. Raises ``Cancelled`` then,
    and otherwise Refused, ChildDied, or TookTooLong if there was no message for ``silence_s``, not counting pauses.
    That guards against an op that never ends. It cannot change a result, because then there is none.
    """
    environment = sealing.environment(TMPDIR=str(scratch))
    process = Child("byteor_cloud.captures.process", environment=environment)
    try:
        request = {**request, "readable": [str(path.resolve()) for path in readable]}
        return _converse(process, request, effects, on_tick, silence_s, turn)
    except (BrokenPipeError, ConnectionResetError):
        raise ChildDied("the process ended early") from None
    finally:
        if turn is not None:
            turn.detach()  # first: the process id may belong to another process soon
        process.kill()


def _converse(
    process: Child,
    request: Mapping[str, Any],
    effects: Effects | None,
    on_tick: Callable[[Progress], bool],
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
        elif "dies_with_parent" in message:
            if turn is not None:  # not earlier: a stopped process would outlive a worker that is killed
                turn.attach(process.pid)
        elif "effect" in message and effects is not None:
            _send(process, _act(effects, **message["effect"]))
        elif "outcome" in message:
            return message["outcome"]
        elif "refused" in message:
            raise Refused(message["refused"])
        else:
            raise ChildDied(message.get("crashed", "an unknown message"))
    raise ChildDied("the process ended without an answer")


def _act(effects: Effects, stage: str, op: str, payload: str | None = None) -> dict[str, Any]:
    if payload is None:
        return {"decision": str(effects.decide(stage, op))}
    try:
        effects.perform(stage, op, base64.b64decode(payload))
    except EffectFailed as error:
        return {"failed": str(error)}
    return {"failed": None}


def _send(process: Child, message: Mapping[str, Any]) -> None:
    process.socket.sendall(json.dumps(message).encode() + b"\n")


def _messages(process: Child, silence_s: float, clock: Callable[[], float]) -> Iterator[dict[str, Any] | bytes | None]:
    """Yield the messages, the body of a response as bytes, and None each time that a tick has passed.

    Raises TookTooLong by the time of ``clock``, and ChildDied for a message that is too long.
    """
    poll = select.poll()
    poll.register(process.socket.fileno(), select.POLLIN)
    heard, ticked = clock(), time.monotonic()
    pending: list[bytes] = []
    while True:
        silent_s, now = clock() - heard, time.monotonic()
        if silent_s > silence_s:
            raise TookTooLong(f"the process of the replay sent nothing for {silence_s:g} s and was killed")
        if now >= ticked + _TICK_S:
            ticked = now
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
        if sum(map(len, pending)) > _MOST_BYTES:
            raise ChildDied("the process sent too long a message")
        for line in lines:
            yield line.removeprefix(BODY) if line.startswith(BODY) else json.loads(line)
        heard = clock()  # after the caller has performed a side effect, for which the child waits
