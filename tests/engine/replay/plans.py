"""Random plans, parameters and journals for property tests of the replay."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from byteor.engine.replay import Record

PAYLOADS = [
    b"{}", b'{"a":1}', b'{"a": 2, "b": {"c": [1, 2.50]}}', b'{"b":{"c":"x"},"a":"y"}', b'{"a":1,"a":2}', b"[]", b"{",
    b'{"a":19.99}', b'{"a":9007199254740993}', b'{"a":1e3,"b":null}', b'{"b":[{"c":1},{"c":true},{}]}', b"", b'"text"',
    b'{"a":"\xc3\xa9"}', b'{"a":NaN}',
]  # fmt: skip
SCHEMAS: list[Any] = [True, False, {"required": ["a"]}, {"properties": {"a": {"type": "integer", "maximum": 5}}},
                      {"properties": {"a": {"multipleOf": 0.5}}, "minProperties": 1}]  # fmt: skip
RULES = ["a:drop", "a:hash", "b.c:drop", "b.c:hash", "b:replace_with=X", "b.c:replace_with="]
OPS = ["identity", "dataguard_check", "dataguard_redact", "dataguard_fused", "http_post:http://h/x", "exec:/bin/x|y"]

# Hypothesis prepares and checks each of these strategies only once.
_reject = st.sampled_from([{}, {}, {}, {"on_reject": "drop"}, {"on_reject": "stop"}])
_nothing: st.SearchStrategy[dict[str, Any] | None] = st.sampled_from([None, {}])
_schemas = st.sampled_from(SCHEMAS)
_rules = st.lists(st.sampled_from(RULES), max_size=3)
_ops = st.lists(st.sampled_from(OPS), min_size=1, max_size=4)
_on_full = st.sampled_from(["block", "drop"])
_targets = st.sampled_from(["single_ring", "lane_graph"])
_lanes: st.SearchStrategy[dict[str, Any]] = st.sampled_from([
    {}, {"lane": {"kind": "fanout_broadcast"}}, {"lane": {"kind": "journal"}},
    {"lane": {"kind": "sequenced_slots", "capacity": 2}},
])  # fmt: skip


def _some(draw: st.DrawFn, names: list[str]) -> list[str]:
    """Draw one to three of the names, by their positions."""
    positions = draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=3, unique=True))
    return [names[position] for position in positions]


@st.composite
def _params(draw: st.DrawFn, op: str) -> dict[str, Any] | None:
    if not op.startswith("dataguard") or draw(st.integers(0, 5)) == 0:
        return draw(_nothing)
    params: dict[str, Any] = dict(draw(_reject))
    if op != "dataguard_redact":
        params["schema"] = draw(_schemas)
    if op != "dataguard_check":
        params["rules"] = draw(_rules)
    return params


@st.composite
def _ring(draw: st.DrawFn, stages: list[dict[str, Any]]) -> dict[str, Any]:
    for before, stage in pairwise(stages):
        stage["depends_on"] = [before["id"]]
    body: dict[str, Any] = {"ingress": "in0", "egress": "out0", "stages": stages}
    if draw(st.booleans()):
        body |= {"shards": draw(st.integers(2, 4)), "ordering": "per_key", "shard_key": "a"}
    return body


@st.composite
def _graph(draw: st.DrawFn, stages: list[dict[str, Any]]) -> dict[str, Any]:
    sources = [f"in{number}" for number in range(draw(st.integers(1, 3)))]
    egresses = [f"out{number}" for number in range(draw(st.integers(1, 2)))]
    ends = list(sources)
    pairs: list[tuple[str, str]] = []
    for stage in stages:
        pairs += [(source, stage["id"]) for source in _some(draw, ends)]
        ends.append(stage["id"])
    for egress in egresses:
        pairs += [(source, egress) for source in _some(draw, ends)]
    used = {source for source, _ in pairs}
    pairs += [(name, egresses[0]) for name in ends if name not in used]
    pairs = draw(st.permutations(pairs))
    chosen_lane = draw(_lanes)
    return {
        "ingress": sources,
        "egress": egresses,
        "stages": stages,
        "on_full": draw(_on_full),
        "features": ["journal", "sequenced_slots"],
        "connections": [
            {"from": source, "to": target, **(chosen_lane if draw(st.booleans()) else {})} for source, target in pairs
        ],
    }


_records = st.lists(st.builds(Record, st.integers(0, 12), st.integers(0, 9), st.sampled_from(PAYLOADS)), max_size=8)


@st.composite
def replays(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Record]]]:
    """Draw a plan, the parameters of its stages, and journals of some of its ingresses."""
    ops = draw(_ops)
    stages = [{"id": f"s{number}", "op": op} for number, op in enumerate(ops)]
    config = {f"s{number}": params for number, op in enumerate(ops) if (params := draw(_params(op))) is not None}
    target = draw(_targets)
    body = draw(_ring(stages) if target == "single_ring" else _graph(stages))
    names = [body["ingress"]] if target == "single_ring" else body["ingress"]
    journals = {name: draw(_records) for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True))}
    return {"plan_v": 1, "name": "p", "target": target, target: body}, config, journals


@st.composite
def changes(draw: st.DrawFn) -> tuple[tuple[Any, Any], tuple[Any, Any], dict[str, list[Record]]]:
    """Draw two configurations, each a plan with parameters, and journals of some of the first one's ingresses."""
    plan, config, journals = draw(replays())
    if draw(st.booleans()):
        other, other_config, _ = draw(replays())
        return (plan, config), (other, other_config), journals
    stages = plan[plan["target"]]["stages"]
    drawn = {stage["id"]: draw(_params(stage["op"])) for stage in stages if draw(st.booleans())}
    changed = {id: params for id, params in (config | drawn).items() if params is not None}
    return (plan, config), (plan, changed), journals
