"""Diagnostics, their codes, and the report that collects the diagnostics of a compilation."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

MAX_DIAGNOSTICS = 200
"""The maximum number of diagnostics of a compilation. If some are left out, the last one reports that."""


class Severity(StrEnum):
    """The severity of a diagnostic. Only an error prevents a plan from compiling."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Code(StrEnum):
    """The codes of diagnostics. Clients depend on them, so they are stable; messages and hints may change."""

    PLAN_SCHEMA = "plan.schema"
    PLAN_TARGET_MISSING = "plan.target_missing"
    STAGE_DUPLICATE_ID = "stage.duplicate_id"
    STAGE_UNKNOWN_OP = "stage.unknown_op"
    STAGE_INVALID_OP = "stage.invalid_op"
    RING_NO_STAGES = "ring.no_stages"
    RING_TOO_MANY_STAGES = "ring.too_many_stages"
    RING_SHARDS = "ring.shards"
    RING_STRICT_SHARDED = "ring.strict_sharded"
    RING_SHARD_KEY_MISSING = "ring.shard_key_missing"
    RING_PRODUCER = "ring.producer"
    RING_SCHEDULING = "ring.scheduling"
    RING_UNKNOWN_DEPENDENCY = "ring.unknown_dependency"
    RING_SELF_DEPENDENCY = "ring.self_dependency"
    RING_FORWARD_DEPENDENCY = "ring.forward_dependency"
    RING_DUPLICATE_DEPENDENCY = "ring.duplicate_dependency"
    RING_MISSING_DEPENDENCY = "ring.missing_dependency"
    GRAPH_UNKNOWN_ENDPOINT = "graph.unknown_endpoint"
    GRAPH_DUPLICATE_CONNECTION = "graph.duplicate_connection"
    GRAPH_CYCLE = "graph.cycle"
    GRAPH_UNREACHABLE = "graph.unreachable"
    GRAPH_DEAD_END = "graph.dead_end"
    GRAPH_LANE_FEATURE = "graph.lane_feature"
    GRAPH_SLOTS_CAPACITY = "graph.slots_capacity"
    GRAPH_FANOUT_CONSUMERS = "graph.fanout_consumers"
    GRAPH_BOUNDARY_UNCONNECTED = "graph.boundary_unconnected"
    GRAPH_TOO_LARGE = "graph.too_large"
    LOWER_ROUTER = "lower.router"
    LOWER_MERGE = "lower.merge"
    LOWER_BRIDGE = "lower.bridge"

    @property
    def severity(self) -> Severity:
        """INFO for a role that lowering inserted, and ERROR for any other finding."""
        return Severity.INFO if self.startswith("lower.") else Severity.ERROR


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about a plan or spec: a severity, a code, a JSON Pointer, a message, and a hint for the author."""

    severity: Severity
    code: Code
    pointer: str
    message: str
    hint: str

    def to_json(self) -> dict[str, str]:
        """Return the diagnostic as JSON data."""
        return {key: str(value) for key, value in asdict(self).items()}


class CompileReport:
    """Collects the diagnostics of a compilation."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []
        self._pointers: set[str] = set()
        self.ok = True

    def add(self, code: Code, pointer: str, message: str, hint: str) -> None:
        """Add a diagnostic. If the report is full, only ``ok`` is updated."""
        if code.severity is Severity.ERROR:
            self.ok = False
        if not self.is_full:
            self._found.append(Diagnostic(code.severity, code, pointer, message, hint))
            self._pointers.add(pointer)

    @property
    def is_full(self) -> bool:
        """Whether further diagnostics would be discarded."""
        return len(self._found) > MAX_DIAGNOSTICS

    def has_diagnostic_at(self, pointer: str) -> bool:
        """Return whether this pointer already has a diagnostic, so that a second rule need not add another."""
        return pointer in self._pointers

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The diagnostics in the order in which they were added. If some are left out, the last one reports that."""
        if not self.is_full:
            return tuple(self._found)
        first_hidden = self._found[MAX_DIAGNOSTICS - 1]
        more = Diagnostic(
            first_hidden.severity,
            first_hidden.code,
            "",
            f"There are more diagnostics; only the first {MAX_DIAGNOSTICS - 1} are shown.",
            "Fix these first and compile again." if not self.ok else "The spec lists all inserted roles.",
        )
        return (*self._found[: MAX_DIAGNOSTICS - 1], more)


def quote(value: object) -> str:
    """Format any JSON value for a message, as one short line of ASCII."""
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return json.dumps(value if len(value) <= 70 else value[:67] + "...")
        case int():
            # Python refuses to print an integer of thousands of digits, and nobody would read it.
            return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
        case float():
            return json.dumps(value)
        case dict():
            return "an object"
        case list():
            return "a list"
    return f"a Python {type(value).__name__}"


def nearest_word(word: str, known: Iterable[str]) -> str | None:
    """Return a known word that is similar to a misspelled one, or None if none was found."""
    word = word[:80]
    candidates = list(known)
    if len(candidates) > 64:
        # Comparing hundreds of misspelled words with thousands of ids each would take seconds.
        candidates = list(dict.fromkeys(_neighbors_in_order(word, candidates)))
    matches = get_close_matches(word, candidates, n=1)
    return matches[0] if matches else None


def _neighbors_in_order(word: str, known: list[str]) -> Iterator[str]:
    """Yield the words next to ``word`` in alphabetical order, then those next to it by reversed spelling."""
    for step in (1, -1):
        ordered = sorted(name[::step] for name in known)
        place = bisect_left(ordered, word[::step])
        yield from (name[::step] for name in ordered[max(0, place - 16) : place + 16])


def join_options(options: Iterable[object]) -> str:
    """Join the options for a message or a hint as ``"a", "b" or "c"``; at most eight are listed."""
    known = list(options)
    quoted = [quote(option) for option in known[:8]]
    if len(known) > 8:
        quoted.append("another")
    return " or ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))


type JsonObject = dict[str, Any]
