"""Test helpers that check the parameters of a stage, and run a dataguard stage."""

from collections.abc import Callable

from byteor.engine.replay import check_params
from byteor.engine.replay.dataguard import build_guard
from byteor.engine.replay.payload import Message
from byteor.engine.replay.work import WorkMeter


def errors(op: str, params: object) -> list[tuple[str, str]]:
    return [(error.pointer, error.code) for error in check_params(op, params)]


def guard_bytes(op: str, params: object, work: WorkMeter | None = None) -> Callable[[bytes], bytes | None]:
    """Return a function that applies a dataguard op to a payload, and returns None if the record is dropped."""
    guard = build_guard(op, params, work)

    def process(payload: bytes) -> bytes | None:
        result = guard(Message(payload)) if guard else Message(payload)
        return result.payload if isinstance(result, Message) else None

    return process
