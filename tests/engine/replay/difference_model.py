"""A slow and simple model of the difference of two configurations, written from the contract and not from the engine.

It runs each record through ``model.py`` on its own, and compares JSON values as tables of their nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest
from typing import Any

from byteor.engine.replay import Record
from tests.engine.replay import model
from tests.engine.replay.model import Plan

type Group = tuple[str | None, str, tuple[str, ...], str | None]
"""Egress, kind, pointers and code."""
type Example = tuple[str, int]
"""The ingress and sequence of the record with the first difference."""


def merged(lanes: Sequence[str], journals: Mapping[str, Sequence[Record]]) -> list[tuple[str, Record]]:
    """Return the records of all journals with their ingresses, in the order of processing."""
    return model.merged({"target": "x", "x": {"ingress": list(lanes)}}, journals)


def groups(
    before: tuple[Plan, Mapping[str, Any]],
    after: tuple[Plan, Mapping[str, Any]],
    records: Sequence[tuple[str, Record]],
) -> dict[Group, tuple[int, Example]]:
    """Return each group's number of differences, and the ingress and sequence of its first difference."""
    found: dict[Group, tuple[int, Example]] = {}

    def add(group: Group) -> None:
        count, first = found.get(group, (0, (ingress, record.sequence)))
        found[group] = (count + 1, first)

    for ingress, record in records:
        old, new = _Step(*before, ingress, record), _Step(*after, ingress, record)
        if old.stop == new.stop:
            for egress in sorted({*old.frames, *new.frames}):
                for one, other in zip_longest(old.frames.get(egress, []), new.frames.get(egress, [])):
                    if one != other:
                        add(_output(egress, one, other, old, new))
            for first, second in zip_longest(old.actions, new.actions):
                if first != second:
                    add((None, "action", (), (second or first)[1].partition(":")[0]))
        else:
            add((None, "stop", (), None if new.stop is None else "rejected"))
        if old.stop is not None or new.stop is not None:
            break
    return found


class _Step:
    """The output, side effects, drops and stop of one record in a configuration."""

    def __init__(self, plan: Plan, config: Mapping[str, Any], ingress: str, record: Record) -> None:
        self.body = plan[plan["target"]]
        self.frames: dict[str, list[bytes]] = {}
        self.actions: list[tuple[str, str]] = []
        self.drops: list[tuple[str, str]] = []
        self.stop: str | None = None
        if ingress not in model.ingresses(plan):
            return
        done = model.run(plan, config, [(ingress, record)])
        self.stop = done.stop and done.stop[0]
        self.frames = {egress: [payload for _, payload in frames] for egress, frames in done.frames.items()}
        ops = {stage["id"]: stage["op"] for stage in self.body["stages"]}
        self.actions = [(stage, ops[stage]) for stage in done.actions]
        self.drops = [(stage, reason) for stage, counts in done.stages.items() for reason in counts["drops"]]

    def drops_before(self, egress: str) -> list[tuple[str, str]]:
        return [(stage, reason) for stage, reason in self.drops if egress in self._after(stage)]

    def _after(self, node: str) -> set[str]:
        following = {target for source, target in model.connections(self.body) if source == node}
        return following.union(*(self._after(each) for each in following))


def _output(egress: str, before: bytes | None, after: bytes | None, old: _Step, new: _Step) -> Group:
    if before is None or after is None:
        side, other = (new, old) if after is None else (old, new)
        only = [drop for drop in side.drops_before(egress) if drop not in other.drops_before(egress)]
        return (egress, "missing" if after is None else "extra", (), only[0][1] if only else None)
    members = pointers(before, after)
    return (egress, "bytes", (), None) if members is None else (egress, "changed", tuple(members), None)


def pointers(before: bytes, after: bytes) -> list[str] | None:
    """Return the pointers of the members that differ. If there are more than 64, return that of their common ancestor.

    Returns None if a payload is not JSON or repeats a name, or if the values are equal.
    """
    try:
        found = paths(before, after)
    except model.Dropped:
        return None
    if len(found) > 64:
        common = (each for each in _beginnings(min(found)) if all(path[: len(each)] == each for path in found))
        found = {next(common)}
    return sorted("".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in path) for path in found) or None


def paths(before: bytes, after: bytes) -> set[tuple[str, ...]]:
    """Return the paths of the topmost members that differ, with ``*`` for each index.

    Paths that PostgreSQL cannot store are shortened. Raises model.Dropped if a payload is not JSON or repeats a name.
    """
    tops = _tops(*(dict(_nodes(model.parsed(payload), ())) for payload in (before, after)))
    return {shortened(tuple("*" if type(name) is int else str(name) for name in path)) for path in tops}


def equal_members(before: bytes, after: bytes) -> int:
    """Return the number of equal members of two payloads that differ, without those inside of other equal members."""
    nodes = [dict(_nodes(model.parsed(payload), ())) for payload in (before, after)]
    tops = _tops(*nodes)
    above = {path[:length] for path in tops for length in range(len(path) + 1)}
    return sum(path not in above and path[:-1] in above - tops for path in nodes[0])


def _tops(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> set[tuple[str | int, ...]]:
    """Return the paths at which two tables of nodes differ, without those below another differing path."""
    differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path for path in differing if not any(path[:length] in differing for length in range(len(path)))}


def shortened(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path or, if PostgreSQL cannot store it, the path of the closest ancestor that it can store."""
    return next(each for each in _beginnings(path) if all(map(_can_be_stored, each)))


def _beginnings(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Return an iterator over the path, its parent, and so on."""
    return (path[:length] for length in range(len(path), -1, -1))


def _can_be_stored(name: str) -> bool:
    return "\0" not in name and not any(0xD800 <= ord(character) < 0xE000 for character in name)


def _nodes(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the path of each node, with its value or, for an object or a list, the name of its type."""
    if isinstance(value, dict | list):
        yield path, type(value).__name__
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in members:
            yield from _nodes(member, (*path, name))
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        yield path, Fraction(value)
    else:
        yield path, json.dumps(value)
