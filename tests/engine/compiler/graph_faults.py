"""Faults of lane graphs, and the notes about inserted roles, in the format of ``faults``."""

from typing import Any

from byteor.engine.compiler import Code
from tests.engine.compiler.faults import PlanFault, graph_with, link, stage


def _fan_out_to_five(graph: dict[str, Any]) -> None:
    more = ["d", "e", "f"]
    graph["stages"] += [stage(name) for name in more]
    graph["connections"] += [link("a", name, kind="fanout_broadcast") for name in more]
    graph["connections"] += [link(name, "out") for name in more]


GRAPH_FAULTS: list[PlanFault] = [
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"][3].update(to="outt")),
        "/lane_graph/connections/3/to",
        'Write "out".',
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("a", "nowhere"))),
        "/lane_graph/connections/5/to",
        "Write the name of an ingress, stage or egress of this graph.",
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("a", "in"))),
        "/lane_graph/connections/5/to",
        "Write the id of a stage, or swap from and to.",
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("out", "a"))),
        "/lane_graph/connections/5/from",
        "Write the id of a stage, or swap from and to.",
    ),
    (
        Code.GRAPH_DUPLICATE_CONNECTION,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("a", "b"))),
        "/lane_graph/connections/5",
        "Remove one of the two; there can be only one connection from a node to another.",
    ),
    (
        Code.GRAPH_CYCLE,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("c", "a"))),
        "/lane_graph/connections/5",
        'Remove a connection of the cycle, such as "c" -> "a".',
    ),
    (
        Code.GRAPH_UNREACHABLE,
        "graph",
        graph_with(lambda graph: graph["connections"].pop(1)),
        "/lane_graph/stages/1",
        'Add a connection to "b", or remove "b".',
    ),
    (
        Code.GRAPH_DEAD_END,
        "graph",
        graph_with(lambda graph: graph["connections"].pop(3)),
        "/lane_graph/stages/1",
        'Add a connection from "b", or remove "b".',
    ),
    (
        Code.GRAPH_LANE_FEATURE,
        "graph",
        graph_with(lambda graph: graph["connections"][0].update(lane={"kind": "journal"})),
        "/lane_graph/connections/0/lane/kind",
        'Add "journal" to lane_graph.features.',
    ),
    (
        Code.GRAPH_SLOTS_CAPACITY,
        "graph",
        graph_with(lambda graph: graph["connections"][0].update(lane={"kind": "sequenced_slots"})),
        "/lane_graph/connections/0/lane/capacity",
        'Add "capacity": a whole number from 1 to 1048576, such as 1024.',
    ),
    (
        Code.GRAPH_SLOTS_CAPACITY,
        "graph",
        graph_with(lambda g: g["connections"][0].update(lane={"kind": "sequenced_slots", "capacity": 0})),
        "/lane_graph/connections/0/lane/capacity",
        "Write a whole number from 1 to 1048576, without quotes.",
    ),
    (
        Code.GRAPH_FANOUT_CONSUMERS,
        "graph",
        graph_with(_fan_out_to_five),
        "/lane_graph/connections/7",
        'Fan out to at most 4, or use a router: write "lane": {"kind": "events"} in one of these connections.',
    ),
    (
        Code.GRAPH_BOUNDARY_UNCONNECTED,
        "graph",
        graph_with(lambda graph: graph["ingress"].append("side")),
        "/lane_graph/ingress/1",
        'Add a connection from "side", or remove the ingress.',
    ),
    (
        Code.GRAPH_BOUNDARY_UNCONNECTED,
        "graph",
        graph_with(lambda graph: graph["egress"].append("side")),
        "/lane_graph/egress/1",
        'Add a connection to "side", or remove the egress.',
    ),
    (
        Code.GRAPH_BOUNDARY_UNCONNECTED,
        "graph",
        graph_with(lambda graph: graph.pop("ingress")),
        "/lane_graph/ingress",
        'Write at least one name, such as ["in"], and connect it.',
    ),
    (
        Code.GRAPH_TOO_LARGE,
        "graph",
        graph_with(lambda graph: graph["stages"].extend(stage(f"s{n}") for n in range(4_094))),
        "/lane_graph/stages",
        "Keep at most 4,096; split a larger pipeline in two.",
    ),
    (
        Code.GRAPH_TOO_LARGE,
        "graph",
        graph_with(lambda graph: graph.update(connections=[link("a", "b")] * 16_385)),
        "/lane_graph/connections",
        "Keep at most 16,384; split a larger pipeline in two.",
    ),
    (
        Code.LOWER_ROUTER,
        "graph",
        lambda plan: None,
        "/lane_graph/stages/0",
        "This is not an error. To avoid the extra role, keep only one outgoing connection.",
    ),
    (
        Code.LOWER_MERGE,
        "graph",
        lambda plan: None,
        "/lane_graph/egress/0",
        "This is not an error. To avoid the extra role, keep only one incoming connection.",
    ),
    (
        Code.LOWER_BRIDGE,
        "graph",
        lambda plan: None,
        "/lane_graph/stages/0",
        "This is not an error. To avoid the extra role, make it read and write the same kind of lane.",
    ),
]
