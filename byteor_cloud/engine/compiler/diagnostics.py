"""What a compile has to say: every code, one diagnostic, and the report that collects them."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

MAX_DIAGNOSTICS = 200
"""A compile answers with at most this many diagnostics; of a longer list the last one says so."""


class Severity(StrEnum):
    """How much a diagnostic weighs: only errors keep a plan from compiling."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Code(StrEnum):
    """Every code a diagnostic can carry; clients branch on these, texts may change."""

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
        """Info for what lowering inserts, error for all else."""
        return Severity.INFO if self.startswith("lower.") else Severity.ERROR


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: where it is (a JSON Pointer into the plan), what is wrong, what to write instead."""

    severity: Severity
    code: Code
    pointer: str
    message: str
    hint: str

    def to_json(self) -> dict[str, str]:
        """Give the diagnostic as plain JSON data."""
        return {key: str(value) for key, value in asdict(self).items()}


class Report:
    """Collects diagnostics up to the bound; readers of long lists stop when it is full."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []
        self._blamed: set[str] = set()
        self.ok = True

    def add(self, code: Code, pointer: str, message: str, hint: str) -> None:
        """Record a finding; beyond the bound only that there was one."""
        if code.severity is Severity.ERROR:
            self.ok = False
        if not self.full:
            self._found.append(Diagnostic(code.severity, code, pointer, message, hint))
            self._blamed.add(pointer)

    @property
    def full(self) -> bool:
        """Whether anything more would go unreported."""
        return len(self._found) > MAX_DIAGNOSTICS

    def blames(self, pointer: str) -> bool:
        """Whether something was said about this very place, so that a second rule can keep quiet."""
        return pointer in self._blamed

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was found, in the order of finding; the last of a full list says that there is more."""
        if not self.full:
            return tuple(self._found)
        first_hidden = self._found[MAX_DIAGNOSTICS - 1]
        more = Diagnostic(
            first_hidden.severity,
            first_hidden.code,
            "",
            f"There is more to say than the first {MAX_DIAGNOSTICS - 1} diagnostics shown here.",
            "Mend these first and compile again." if not self.ok else "Look at the drawing for the rest.",
        )
        return (*self._found[: MAX_DIAGNOSTICS - 1], more)


def shown(value: object) -> str:
    """Name a JSON value in a message: short, one line, ASCII, whatever the value holds."""
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return json.dumps(value if len(value) <= 70 else value[:67] + "...")
        case int():
            # A decimal of thousands of digits would raise, and tells nobody anything.
            return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
        case float():
            return json.dumps(value)
        case dict():
            return "an object"
        case list():
            return "a list"
    return f"a Python {type(value).__name__}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that was probably meant."""
    word = word[:80]
    candidates = list(known)
    if len(candidates) > 64:
        # Comparing with thousands of ids for each of hundreds of mistakes would take seconds.
        candidates = list(dict.fromkeys(_neighbours_in_order(word, candidates)))
    matches = get_close_matches(word, candidates, n=1)
    return matches[0] if matches else None


def _neighbours_in_order(word: str, known: list[str]) -> Iterator[str]:
    """Give the words that share the longest beginnings with this one, then the longest ends."""
    for step in (1, -1):
        ordered = sorted(name[::step] for name in known)
        place = bisect_left(ordered, word[::step])
        yield from (name[::step] for name in ordered[max(0, place - 16) : place + 16])


def one_of(options: Iterable[object]) -> str:
    """List the options of a hint, at most eight of them: ``"a", "b" or "c"``."""
    known = list(options)
    quoted = [shown(option) for option in known[:8]]
    if len(known) > 8:
        quoted.append("another")
    return " or ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))


type Json = dict[str, Any]
