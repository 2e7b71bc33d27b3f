"""Where a text says what a JSON Pointer points to: lines and columns for an editor's marks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from byteor_cloud.engine.strict_json import TOKEN


class Position(NamedTuple):
    """A place in a text; both count from 1, the column in characters."""

    line: int
    column: int


def locate(text: str, pointers: Iterable[str]) -> dict[str, Position]:
    """Say where the member or item of each pointer begins; of one that is not there, its nearest ancestor.

    The text is one that ``parse_plan`` accepts. A member begins with its key.
    """
    tree = _Tree()
    wanted = {pointer: tree.node(pointer) for pointer in pointers}
    _find(text, tree.root)
    for node in tree.nodes:  # ancestors first
        if node.offset is None and node.parent is not None:
            node.offset = node.parent.offset
    places = _places(text, {node.offset or 0 for node in wanted.values()})
    return {pointer: places[node.offset or 0] for pointer, node in wanted.items()}


@dataclass(eq=False, slots=True)
class _Node:
    """A place that somebody asks for, or that lies on the way to one."""

    parent: _Node | None
    below: dict[str, _Node] = field(default_factory=dict)
    offset: int | None = None


class _Tree:
    """The places asked for: only they are kept, or long keys above many items would take quadratic space."""

    def __init__(self) -> None:
        self.root = _Node(None)
        self.nodes = [self.root]

    def node(self, pointer: str) -> _Node:
        """Give the node of a pointer, made with those above it."""
        node = self.root
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if key not in node.below:
                node.below[key] = _Node(node)
                self.nodes.append(node.below[key])
            node = node.below[key]
        return node


@dataclass(slots=True)
class _Open:
    """An object or a list that is being read: what is asked for in it, and what its next value is."""

    below: dict[str, _Node]
    is_list: bool
    count: int = 0
    member: _Node | None = None

    def key(self, quoted: str, start: int) -> None:
        """Take note of a member's key."""
        self.member = self.below.get(json.loads(quoted) if "\\" in quoted else quoted[1:-1])
        if self.member:
            self.member.offset = start


def _find(text: str, root: _Node) -> None:
    """Write the offsets of the wanted nodes, in one pass over the text."""
    # The document is read like the only item of a list.
    inside = _Open({"0": root}, is_list=True)
    stack = [inside]
    skipped = 0  # how deep we are in a value in which nobody asks for anything
    for token in TOKEN.finditer(text):
        kind = token.lastgroup
        if skipped:
            skipped += (kind == "open") - (kind == "close")
        elif kind == "close":
            stack.pop()
            inside = stack[-1]
        elif kind == "colon":
            inside.key(token["string"], token.start())
        else:
            node = inside.member
            if inside.is_list:
                node = inside.below.get(str(inside.count))
                inside.count += 1
                if node:
                    node.offset = token.start()
            if kind == "open" and node and node.below:
                inside = _Open(node.below, is_list=token[0] == "[")
                stack.append(inside)
            elif kind == "open":
                skipped = 1


def _places(text: str, offsets: set[int]) -> dict[int, Position]:
    """Count the lines and columns of offsets, in one pass."""
    places: dict[int, Position] = {}
    line, line_start, counted = 1, 0, 0
    for offset in sorted(offsets):
        line += text.count("\n", counted, offset)
        line_start = max(line_start, text.rfind("\n", counted, offset) + 1)
        counted = offset
        places[offset] = Position(line, offset - line_start + 1)
    return places
