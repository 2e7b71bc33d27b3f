"""Groups the differences of two configurations. Each group has a count, and its first difference as an example."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from byteor.engine.canonical import canonical
from byteor.engine.compiler import split_op
from byteor.engine.replay.json_difference import Kind, differing_members
from byteor.engine.replay.payload import Message
from byteor.engine.replay.replay import ReplayLimits
from byteor.engine.replay.selection import Selection
from byteor.engine.replay.shown_payload import show_payload
from byteor.engine.replay.side_run import Row, SideRun, Stop, Tracer, first_different_stage, selected_rows

MAX_GROUPS = 1_000
MAX_POINTER_CHARACTERS = 256 * 1024
"""The maximum total length of the pointers of all groups, in characters. If a new group would exceed this limit or
``MAX_GROUPS``, its differences are only counted."""
_EXAMPLE_BYTES = 16 * 1024  # the shown part of a payload in an example
_EXAMPLES_BYTES = 1024 * 1024  # the shown parts of all examples; later examples have no payloads


class _Key(NamedTuple):
    """The properties that the differences of a group have in common."""

    egress: str | None
    kind: Kind
    pointers: tuple[str, ...] = ()
    code: str | None = None

    def id(self) -> str:
        return hashlib.sha256(canonical([self.egress, self.kind, list(self.pointers), self.code])).hexdigest()


@dataclass(slots=True)
class _Group:
    """The number of differences with the same key, and the first of them as an example."""

    row: Row
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    stage: str | None
    count: int = 1


class DifferenceGroups:
    """The groups of differences, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[_Key, _Group] = {}
        self._more = 0
        self._left = _EXAMPLES_BYTES
        self._characters = MAX_POINTER_CHARACTERS

    def compare(self, old: SideRun, new: SideRun, rows: Mapping[int, Row]) -> None:
        """Compare what the sides did with the records of a batch, up to the first record that stops a side.

        A stop of only one side, or of the sides in two different stages, is a difference. If the same stage stops both
        sides, their outputs and side effects for that record are compared.
        """
        stops = [run.stop for run in (old, new) if run.stop is not None]
        end = min((stop.rank for stop in stops), default=None)
        if end is None:
            if old.outputs != new.outputs:
                self._compare_outputs(old, new, rows)
            if old.actions != new.actions:
                self._compare_actions(old, new, rows)
            return
        before, after = (stop if stop is not None and stop.rank == end else None for stop in (old.stop, new.stop))
        is_same = before is not None and after is not None and before.stage == after.stage
        compared = {rank: row for rank, row in rows.items() if rank < end + is_same}
        self._compare_outputs(old, new, compared)
        self._compare_actions(old, new, compared)
        if not is_same:
            self._add_stop(before, after, rows[end])

    def _compare_outputs(self, old: SideRun, new: SideRun, rows: Mapping[int, Row]) -> None:
        befores, afters = _outputs_by_record(old), _outputs_by_record(new)
        egresses = list(dict.fromkeys((*new.runner.egresses, *old.runner.egresses)))
        for rank, row in rows.items():
            before, after = befores.get(rank, []), afters.get(rank, [])
            for egress in egresses:
                pairs = zip_longest(*([each for name, each in side if name == egress] for side in (before, after)))
                for one, other in pairs:
                    if one is None or other is None or one.payload != other.payload:
                        self._add_output(old, new, row, egress, one, other)

    def _add_output(
        self, old: SideRun, new: SideRun, row: Row, egress: str, before: Message | None, after: Message | None
    ) -> None:
        stage = None
        if before is not None and after is not None:
            members = differing_members(before, after)
            key = _Key(egress, Kind.BYTES) if members is None else _Key(egress, Kind.CHANGED, tuple(members))
        else:
            kind, run, other = (Kind.MISSING, new, old) if after is None else (Kind.EXTRA, old, new)
            drops, elsewhere = run.dropped(row.rank, egress), other.dropped(row.rank, egress)
            stage, reason = next((drop for drop in drops if drop not in elsewhere), (None, None))
            key = _Key(egress, kind, (), reason)
        self._add(key, row, None if before is None else before.payload, None if after is None else after.payload, stage)

    def _compare_actions(self, old: SideRun, new: SideRun, rows: Mapping[int, Row]) -> None:
        befores, afters = _actions_by_record(old), _actions_by_record(new)
        for rank, row in rows.items():
            for before, after in zip_longest(befores.get(rank, []), afters.get(rank, [])):
                if before != after:
                    stage, op = after or before
                    sides = [side and canonical({"stage": side[0], "op": side[1]}) for side in (before, after)]
                    self._add(_Key(None, Kind.ACTION, (), split_op(op)[0]), row, sides[0], sides[1], stage)

    def _add_stop(self, before: Stop | None, after: Stop | None, row: Row) -> None:
        sides = [stop and canonical({"stage": stop.stage, "error": _storable(stop.detail)}) for stop in (before, after)]
        stage = after.stage if after is not None else before.stage if before is not None else None
        self._add(_Key(None, Kind.STOP, (), after and after.code), row, sides[0], sides[1], stage)

    def _add(self, key: _Key, row: Row, before: bytes | None, after: bytes | None, stage: str | None) -> None:
        if (group := self._found.get(key)) is not None:
            group.count += 1
        elif len(self._found) == MAX_GROUPS or sum(map(len, key.pointers)) > self._characters:
            self._more += 1
        else:
            self._characters -= sum(map(len, key.pointers))
            self._found[key] = _Group(row._replace(payload=b""), self._shown(before), self._shown(after), stage)

    def _shown(self, payload: bytes | None) -> dict[str, Any] | None:
        if payload is None:
            return None
        shown = payload[: min(_EXAMPLE_BYTES, self._left)]
        self._left -= len(shown)
        return show_payload(shown, len(payload), has_bytes=False)

    def trace_examples(self, old: SideRun, new: SideRun, selection: Selection, limits: ReplayLimits) -> None:
        """Find the stage in which the sides first differ, for each example whose stage is not known yet.

        This is a second pass over the records, up to the last of these examples.
        """
        wanted: dict[int, list[tuple[str | None, _Group]]] = {}
        for key, group in self._found.items():
            if group.stage is None:
                wanted.setdefault(group.row.rank, []).append((key.egress, group))
        if not wanted:
            return
        tracers = Tracer(old, limits), Tracer(new, limits)
        for row in islice(selected_rows(selection), max(wanted) + 1):
            for egress, group in wanted.get(row.rank, ()):
                lane = selection.journals[row.journal].lane
                before, after = (tracer.steps(lane, row.payload, egress) for tracer in tracers)
                group.stage = first_different_stage(before, after)

    @property
    def more(self) -> int:
        """The number of differences without a group, because of ``MAX_GROUPS`` or ``MAX_POINTER_CHARACTERS``."""
        return self._more

    def as_json(self, selection: Selection) -> list[dict[str, Any]]:
        """Return the groups as JSON data."""
        return [
            {
                "id": key.id(),
                "egress": key.egress,
                "kind": str(key.kind),
                "pointers": list(key.pointers),
                "code": key.code,
                "count": group.count,
                "example": {
                    "ingress": selection.journals[group.row.journal].lane,
                    "sequence": group.row.sequence,
                    "before": group.before,
                    "after": group.after,
                    "stage": group.stage,
                },
            }
            for key, group in self._found.items()
        ]


def _storable(text: str) -> str:
    """Replace the characters that PostgreSQL cannot store."""
    return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _outputs_by_record(run: SideRun) -> dict[int, list[tuple[str, Message]]]:
    found: dict[int, list[tuple[str, Message]]] = {}
    for (rank, egress, _), message in zip(run.outputs, run.messages, strict=True):
        found.setdefault(rank, []).append((egress, message))
    return found


def _actions_by_record(run: SideRun) -> dict[int, list[tuple[str, str]]]:
    found: dict[int, list[tuple[str, str]]] = {}
    for rank, stage, op in run.actions:
        found.setdefault(rank, []).append((stage, op))
    return found
