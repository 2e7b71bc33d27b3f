"""Graph algorithms on nodes that are numbered from 0, without recursion.

They take O(n) or O(n log n) time, where n is the number of nodes and edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

type Successors = Sequence[Sequence[int]]


def neighbors(count: int, pairs: Iterable[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the successors and the predecessors of each node. ``pairs`` are the edges."""
    successors: list[list[int]] = [[] for _ in range(count)]
    predecessors: list[list[int]] = [[] for _ in range(count)]
    for source, target in pairs:
        successors[source].append(target)
        predecessors[target].append(source)
    return successors, predecessors


def topological_order(successors: Successors, predecessors: Successors) -> list[int]:
    """Sort the nodes so that each follows its predecessors; of several possible nodes, the lowest comes first.

    Nodes in or after a cycle are left out.
    """
    waiting = [len(sources) for sources in predecessors]
    ready = [node for node, count in enumerate(waiting) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        node = heappop(ready)
        order.append(node)
        for target in successors[node]:
            waiting[target] -= 1
            if not waiting[target]:
                heappush(ready, target)
    return order


def reachable_nodes(starts: Iterable[int], successors: Successors) -> set[int]:
    """Return every node that can be reached from one of the starts, including the starts."""
    seen = set(starts)
    pending = list(seen)
    while pending:
        for target in successors[pending.pop()]:
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return seen


def find_cycles(successors: Successors, predecessors: Successors) -> list[list[int]]:
    """Return a shortest cycle through the lowest node of each strongly connected component that has a cycle."""
    found: list[list[int]] = []
    for component in _components(successors, predecessors):
        start = min(component)
        if len(component) > 1 or start in successors[start]:
            found.append(_shortest_cycle(start, component, successors))
    return sorted(found)


def _components(successors: Successors, predecessors: Successors) -> list[set[int]]:
    """Split the nodes into strongly connected components (Kosaraju's algorithm)."""
    finished: list[int] = []
    seen: set[int] = set()
    for root in range(len(successors)):
        if root in seen:
            continue
        seen.add(root)
        path = [(root, iter(successors[root]))]
        while path:
            node, targets = path[-1]
            target = next((target for target in targets if target not in seen), None)
            if target is None:
                finished.append(node)
                path.pop()
            else:
                seen.add(target)
                path.append((target, iter(successors[target])))
    components: list[set[int]] = []
    assigned: set[int] = set()
    for root in reversed(finished):
        if root in assigned:
            continue
        component = {root}
        pending = [root]
        while pending:
            for source in predecessors[pending.pop()]:
                if source not in assigned and source not in component:
                    component.add(source)
                    pending.append(source)
        assigned |= component
        components.append(component)
    return components


def _shortest_cycle(start: int, component: set[int], successors: Successors) -> list[int]:
    """Return a shortest cycle through the start: search the component breadth-first."""
    came_from: dict[int, int] = {}
    level = [start]
    while start not in came_from:
        following: list[int] = []
        for node in level:
            for target in successors[node]:
                if target in component and target not in came_from:
                    came_from[target] = node
                    following.append(target)
        level = following
    cycle = [came_from[start]]
    while cycle[-1] != start:
        cycle.append(came_from[cycle[-1]])
    return cycle[::-1]
