"""Finds the line and column of JSON Pointers in a JSON text, so that an editor can mark them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from byteor.engine.strict_json import TOKEN


class Position(NamedTuple):
    """A position in text. Lines and columns count from 1, and columns are characters."""

    line: int
    column: int


def locate(text: str, pointers: Iterable[str]) -> dict[str, Position]:
    """Return the position of each pointer: the start of a member's key, of a list item, or of the whole value.

    A pointer to a missing value gets the position of its nearest existing ancestor. The text must be strict JSON.
    """
    tree = _Tree()
    requested = {pointer: tree.node(pointer) for pointer in pointers}
    _find(text, tree.root)
    for node in tree.nodes:  # ancestors come before their descendants
        if node.offset is None and node.parent is not None:
            node.offset = node.parent.offset
    positions = _positions(text, {node.offset or 0 for node in requested.values()})
    return {pointer: positions[node.offset or 0] for pointer, node in requested.items()}


@dataclass(eq=False, slots=True)
class _RequestedNode:
    """A node of the document that a pointer refers to, or an ancestor of such a node."""

    parent: _RequestedNode | None
    below: dict[str, _RequestedNode] = field(default_factory=dict)
    offset: int | None = None


class _Tree:
    """The tree of the requested nodes.

    A list of all pointers in the document could take quadratic space, because each repeats the keys of its ancestors.
    """

    def __init__(self) -> None:
        self.root = _RequestedNode(None)
        self.nodes = [self.root]

    def node(self, pointer: str) -> _RequestedNode:
        """Return the node of a pointer; create it and its ancestors as needed."""
        node = self.root
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if key not in node.below:
                node.below[key] = _RequestedNode(node)
                self.nodes.append(node.below[key])
            node = node.below[key]
        return node


@dataclass(slots=True)
class _OpenValue:
    """An object or list that is being read, with its requested children.

    In an object, ``member`` is the node of the latest key, or None if that member was not requested.
    """

    below: dict[str, _RequestedNode]
    is_list: bool
    count: int = 0
    member: _RequestedNode | None = None

    def read_key(self, quoted: str, start: int) -> None:
        """Store the offset of a member's key, if the member was requested."""
        self.member = self.below.get(json.loads(quoted) if "\\" in quoted else quoted[1:-1])
        if self.member:
            self.member.offset = start


def _find(text: str, root: _RequestedNode) -> None:
    """Set the offsets of the requested nodes, in one pass over the text."""
    # The document is treated as the only item of a list.
    inside = _OpenValue({"0": root}, is_list=True)
    stack = [inside]
    skipped = 0  # the current depth inside a value that contains no requested node
    for token in TOKEN.finditer(text):
        kind = token.lastgroup
        if skipped:
            skipped += (kind == "open") - (kind == "close")
        elif kind == "close":
            stack.pop()
            inside = stack[-1]
        elif kind == "colon":
            inside.read_key(token["string"], token.start())
        else:
            node = inside.member
            if inside.is_list:
                node = inside.below.get(str(inside.count))
                inside.count += 1
                if node:
                    node.offset = token.start()
            if kind == "open" and node and node.below:
                inside = _OpenValue(node.below, is_list=token[0] == "[")
                stack.append(inside)
            elif kind == "open":
                skipped = 1


def _positions(text: str, offsets: set[int]) -> dict[int, Position]:
    """Return the positions of offsets, in one pass over the text."""
    positions: dict[int, Position] = {}
    line, line_start, counted = 1, 0, 0
    for offset in sorted(offsets):
        line += text.count("\n", counted, offset)
        line_start = max(line_start, text.rfind("\n", counted, offset) + 1)
        counted = offset
        positions[offset] = Position(line, offset - line_start + 1)
    return positions
