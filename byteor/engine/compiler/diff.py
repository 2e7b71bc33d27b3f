"""The difference between two specs: a list of semantic changes, and a unified diff of their KV texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Literal

from .diagnostics import JsonObject
from .kv import encode
from .spec import LaneGraph, PipelineSpec, SingleRing

type PartValue = str | int | None
type SpecParts = dict[str, dict[str, PartValue]]


@dataclass(frozen=True, slots=True)
class SpecChange:
    """One part of a spec that was added, removed or changed.

    ``what`` is ``pipeline``, ``endpoint``, ``stage``, ``op``, ``order``, ``dependency``, ``lane``, ``inserted`` (a
    role that lowering inserted) or ``policy``.
    """

    change: Literal["added", "removed", "changed"]
    what: str
    name: str
    old: PartValue
    new: PartValue

    def to_json(self) -> JsonObject:
        """Return the change as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SpecDiff:
    """The semantic changes between two specs, and the unified diff of their KV texts.

    ``truncated`` is whether changes or lines were left out.
    """

    changes: tuple[SpecChange, ...]
    unified: str
    truncated: bool = False

    def bounded(self, max_bytes: int) -> SpecDiff:
        """Return the diff with only its first changes and lines.

        The sizes of the changes, each as JSON, add up to at most ``max_bytes``. The same limit applies to the lines.
        """
        changes = _beginning(self.changes, max_bytes, lambda change: len(json.dumps(change.to_json())))
        lines = self.unified.splitlines(keepends=True)
        shown = _beginning(lines, max_bytes, lambda line: len(json.dumps(line)))
        is_cut = len(changes) < len(self.changes) or len(shown) < len(lines)
        return SpecDiff(tuple(changes), "".join(shown), is_cut)

    def to_json(self) -> JsonObject:
        """Return the diff as JSON data."""
        changes: list[JsonObject] = [change.to_json() for change in self.changes]
        return {"changes": changes, "unified": self.unified, "truncated": self.truncated}


def _beginning[T](items: Sequence[T], max_size: int, size: Callable[[T], int]) -> Sequence[T]:
    """Return the longest prefix of the items whose total size is at most ``max_size``."""
    return items[: sum(total <= max_size for total in accumulate(map(size, items)))]


def diff_specs(old: PipelineSpec, new: PipelineSpec) -> SpecDiff:
    """Compare two valid specs."""
    before, after = _spec_parts(old), _spec_parts(new)
    # An added or removed stage shifts the positions of the other stages, but does not change their order.
    shared = before["order"].keys() & after["order"].keys()
    for parts in (before, after):
        names = [name for name in parts["order"] if name in shared]
        parts["order"] = {name: position for position, name in enumerate(names)}
    changes = tuple(change for what in before for change in _changes(what, before[what], after[what]))
    return SpecDiff(changes, _unified(encode(old), encode(new)))


_MODELS = {SingleRing: "single_ring", LaneGraph: "lane_graph"}


def _spec_parts(spec: PipelineSpec) -> SpecParts:
    """Return the name and value of each part of a spec, by kind of part (``SpecChange.what``)."""
    model = spec.model
    parts: SpecParts = {"pipeline": {"name": spec.name, "model": _MODELS[type(model)]}, "stage": {}}
    parts["stage"].update(spec.stages)
    return parts | (_ring_parts(model) if isinstance(model, SingleRing) else _graph_parts(model))


def _ring_parts(ring: SingleRing) -> SpecParts:
    policies = ("shards", "shard_key", "ordering", "producer", "scheduling")
    return {
        "endpoint": {ring.ingress: "ingress", ring.egress: "egress"},
        "order": {stage.id: None for stage in ring.stages},
        "dependency": {
            f"{ring.stages[position].id} -> {stage.id}": None for stage in ring.stages for position in stage.depends_on
        },
        "lane": {},
        "inserted": {},
        "policy": {name: value for name in policies if (value := getattr(ring, name)) is not None},
    }


def _graph_parts(graph: LaneGraph) -> SpecParts:
    inserted = [role for role in graph.roles if role.kind != "stage"]
    return {
        "endpoint": {endpoint.name: endpoint.kind for endpoint in graph.endpoints},
        "order": {},
        # The lane of a connection is named <from>.<to>; a lane that lowering inserted has a colon instead of the dot.
        "dependency": {lane.name.replace(".", " -> "): None for lane in graph.lanes if "." in lane.name},
        "lane": {
            lane.name: " ".join(
                [
                    lane.kind,
                    *([f"capacity={lane.capacity}"] if lane.capacity else []),
                    *([f"consumers={lane.consumers}"] if lane.consumers else []),
                ]
            )
            for lane in graph.lanes
        },
        "inserted": {role.name: role.kind for role in inserted},
        "policy": {
            "on_full": graph.on_full,
            **{role.name: role.policy for role in inserted if role.policy},
        },
    }


def _changes(what: str, old: dict[str, PartValue], new: dict[str, PartValue]) -> Iterator[SpecChange]:
    for name, value in old.items():
        if name not in new:
            yield SpecChange("removed", what, name, value, None)
        elif new[name] != value:
            yield SpecChange("changed", "op" if what == "stage" else what, name, value, new[name])
    for name, value in new.items():
        if name not in old:
            yield SpecChange("added", what, name, None, value)


def _unified(old: str, new: str) -> str:
    """Write the unified diff of two canonical texts, matching their lines by key.

    Keys are unique and have the same order in both texts, so this takes linear time; difflib would take minutes on
    large graphs.
    """
    rows = list(_rows(old.splitlines(), new.splitlines()))
    spans: list[tuple[int, int]] = []
    for index, (mark, _) in enumerate(rows):
        if mark != " ":
            start, end = max(0, index - 3), min(len(rows), index + 4)
            if spans and start <= spans[-1][1]:
                start = spans.pop()[0]
            spans.append((start, end))
    old_lines = [0, *accumulate(mark != "+" for mark, _ in rows)]
    new_lines = [0, *accumulate(mark != "-" for mark, _ in rows)]
    text = ["--- old\n+++ new\n"] if spans else []
    for start, end in spans:
        was = f"{old_lines[start] + 1},{old_lines[end] - old_lines[start]}"
        now = f"{new_lines[start] + 1},{new_lines[end] - new_lines[start]}"
        text.append(f"@@ -{was} +{now} @@\n")
        text += [f"{mark}{line}\n" for mark, line in rows[start:end]]
    return "".join(text)


def _rows(old: list[str], new: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the lines of the diff, each with its mark: a space, ``-`` or ``+``."""
    old_keys, new_keys = ({line.partition("=")[0] for line in lines} for lines in (old, new))
    pending = iter([*new, ""])
    line = next(pending)
    for was in old:
        key = was.partition("=")[0]
        if key not in new_keys:
            yield "-", was
            continue
        while line.partition("=")[0] not in old_keys:
            yield "+", line
            line = next(pending)
        if line == was:
            yield " ", was
        else:
            yield "-", was
            yield "+", line
        line = next(pending)
    while line:
        yield "+", line
        line = next(pending)
