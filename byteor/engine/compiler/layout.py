"""A layered layout of a graph, from top to bottom with few crossings: deterministic, in nearly linear time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .graph import SpecGraph
from .topology import neighbors, topological_order

GAP = 28.0
LAYER_HEIGHT = 78.0
_SWEEPS = 6
_MAX_BENDS = 20_000
"""The maximum number of bends (points where edges cross a layer). If there would be more, no edge has bends."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The size of a drawing, the center of each node, and the points of each edge, including both ends.

    ``height`` is the distance between the centers of the first and the last layer.
    """

    width: float
    height: float
    nodes: tuple[tuple[float, float], ...]
    edges: tuple[tuple[tuple[float, float], ...], ...]


def place_graph(graph: SpecGraph, widths: Sequence[float]) -> Layout:
    """Lay out an acyclic graph. ``widths`` are the widths of its nodes."""
    numbers = {node.id: number for number, node in enumerate(graph.nodes)}
    pairs = [(numbers[edge.source], numbers[edge.target]) for edge in graph.edges]
    layers = _layers(len(numbers), pairs)
    chains, layers = _chains(pairs, layers)
    all_widths = [*widths, *[8.0] * (len(layers) - len(numbers))]  # the nodes' widths, then the bends'
    steps = [step for chain in chains for step in pairwise(chain)]
    below, above = neighbors(len(layers), steps)
    rows: list[list[int]] = [[] for _ in range(max(layers) + 1)]
    for node, layer in enumerate(layers):
        rows[layer].append(node)
    x = _columns(rows, above, below, all_widths)
    margin = min(x[node] - all_widths[node] / 2 for node in range(len(x)))
    points = [(x[node] - margin, layers[node] * LAYER_HEIGHT) for node in range(len(x))]
    return Layout(
        width=max(x[node] + all_widths[node] / 2 for node in range(len(x))) - margin,
        height=max(layers) * LAYER_HEIGHT,
        nodes=tuple(points[: len(numbers)]),
        edges=tuple(tuple(points[node] for node in chain) for chain in chains),
    )


def _layers(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Return the layer of each node: the length of the longest path that leads to it.

    A node without predecessors is moved down to the layer right above its highest successor.
    """
    after, before = neighbors(count, pairs)
    layers = [0] * count
    for node in topological_order(after, before):
        layers[node] = max((layers[source] + 1 for source in before[node]), default=0)
    for node in range(count):
        if not before[node]:
            layers[node] = min(layers[target] for target in after[node]) - 1
    return layers


def _chains(pairs: list[tuple[int, int]], layers: list[int]) -> tuple[list[list[int]], list[int]]:
    """Split each edge into a chain of nodes, with a bend on every layer that it crosses.

    If that takes too many bends, no edge has any. Returns the chains, and the layers of the nodes, then of the bends.
    """
    layers = list(layers)
    bends = sum(layers[target] - layers[source] - 1 for source, target in pairs)
    chains: list[list[int]] = []
    for source, target in pairs:
        passed = range(layers[source] + 1, layers[target]) if bends <= _MAX_BENDS else ()
        first = len(layers)
        layers.extend(passed)
        chains.append([source, *range(first, len(layers)), target])
    return chains, layers


def _columns(rows: list[list[int]], above: list[list[int]], below: list[list[int]], widths: list[float]) -> list[float]:
    """Return the x coordinate of each node: sort each row by its neighbors' positions, then move nodes toward them."""
    x = [0.0] * len(widths)
    for row in rows:
        _pack(row, x, widths)
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        towards = above if down else below
        for row in rows if down else reversed(rows):
            ideal = {node: _mean(towards[node], x, x[node]) for node in row}
            if sweep < _SWEEPS:
                row.sort(key=ideal.__getitem__)
            _settle(row, ideal, x, widths)
    return x


def _mean(nodes: list[int], x: list[float], default: float) -> float:
    return sum(x[node] for node in nodes) / len(nodes) if nodes else default


def _pack(row: list[int], x: list[float], widths: list[float]) -> None:
    edge = 0.0
    for node in row:
        x[node] = edge + widths[node] / 2
        edge += widths[node] + GAP


def _settle(row: list[int], ideal: dict[int, float], x: list[float], widths: list[float]) -> None:
    """Move each node of a row toward its ideal position, and keep the gaps between the nodes."""
    pushed_right = _pushed([ideal[node] for node in row], [widths[node] for node in row])
    mirrored = _pushed([-ideal[node] for node in reversed(row)], [widths[node] for node in reversed(row)])
    # Both placements keep the gaps between nodes. Their mean keeps the gaps too, and prefers neither side.
    for node, right, left in zip(row, pushed_right, reversed(mirrored), strict=True):
        x[node] = (right - left) / 2


def _pushed(ideal: list[float], widths: list[float]) -> list[float]:
    """Return the ideal positions, each moved to the right as far as the nodes before it require."""
    placed: list[float] = []
    edge = float("-inf")
    for position, width in zip(ideal, widths, strict=True):
        placed.append(max(position, edge + width / 2))
        edge = placed[-1] + width / 2 + GAP
    return placed
