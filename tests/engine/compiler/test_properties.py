"""Properties of random valid plans, of plans and KV texts after one random change, and of random JSON values."""

import copy
import json
import string
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from byteor.engine.compiler import (
    Compilation,
    KvError,
    LaneGraph,
    PipelineSpec,
    SingleRing,
    compile_plan,
    decode,
    diff_specs,
    encode,
    plan_schema,
    to_dot,
    to_svg,
    validate_spec,
)

OPS = [
    "identity",
    "dataguard_check",
    "dataguard_redact",
    "dataguard_fused",
    "http_post:https://[::1]:8443/x?y=z",
    "exec:/bin/cat|-n||a b",
]
SCHEMA = jsonschema.Draft202012Validator(plan_schema())

# ``st.text`` draws a string in one step. ``st.from_regex`` needs several steps for each character.
LETTERS = string.ascii_lowercase
names = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(LETTERS + string.digits + "_-", max_size=4))
ops = st.sampled_from(OPS)
lane_kinds = st.sampled_from(["events", "journal", "sequenced_slots", "fanout_broadcast", "fanout_broadcast"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from(["a", "identity", "events", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def some(draw: st.DrawFn, options: Sequence[str], least: int, most: int | None, *, unique: bool = False) -> list[str]:
    """Draw ``least`` to ``most`` options by position, so that lists of the same length can share a strategy."""
    positions = st.lists(st.integers(0, len(options) - 1), min_size=least, max_size=most, unique=unique)
    return [options[position] for position in draw(positions)]


@st.composite
def ring_plans(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 4))
    ids = draw(st.lists(names, min_size=count + 2, max_size=count + 2, unique=True))
    stages = []
    for index in range(count):
        stage: dict[str, Any] = {"id": ids[index], "op": draw(ops)}
        before = some(draw, ids[:index], 0, None, unique=True) if index else []
        if index and stage["op"] != "identity" and not before:
            before = [ids[index - 1]]
        is_written = draw(st.booleans())
        if before or is_written:
            stage["depends_on"] = before
        stages.append(stage)
    ring: dict[str, Any] = {"ingress": ids[-2], "egress": ids[-1], "stages": stages}
    if draw(st.booleans()):
        ring |= {"shards": draw(st.integers(2, 1_024)), "ordering": "per_key", "shard_key": "a.b_C"}
    elif draw(st.booleans()):
        ring |= {"shards": 1, "ordering": "strict", "producer": "single", "scheduling": "dedicated"}
    return {"plan_v": 1, "name": draw(names), "target": "single_ring", "single_ring": ring}


@st.composite
def graph_plans(draw: st.DrawFn) -> dict[str, Any]:
    """Build a graph without cycles, then list its stages and connections in random order."""
    ins, outs, stage_count = (draw(st.integers(*bounds)) for bounds in ((1, 3), (1, 3), (0, 8)))
    count = ins + stage_count + outs
    ids = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    ingress, stages, egress = ids[:ins], ids[ins : ins + stage_count], ids[ins + stage_count :]
    pairs: dict[tuple[str, str], None] = {}
    for index, stage in enumerate(stages):
        pairs |= dict.fromkeys((source, stage) for source in some(draw, ingress + stages[:index], 1, 3))
    for end in egress:
        pairs |= dict.fromkeys((source, end) for source in some(draw, ingress + stages, 1, 3))
    used = {source for source, _ in pairs}
    for source in ingress + stages:
        if source not in used:
            pairs[source, egress[draw(st.integers(0, len(egress) - 1))]] = None
    connections: list[dict[str, Any]] = []
    fans: Counter[str] = Counter()
    for source, target in draw(st.permutations(list(pairs))):
        kind = draw(lane_kinds)
        fans[source] += kind == "fanout_broadcast"
        if fans[source] > 4:
            kind = "events"
        lane = {"kind": kind} | ({"capacity": draw(st.integers(1, 99))} if kind == "sequenced_slots" else {})
        bare = kind == "events" and draw(st.booleans())
        connections.append({"from": source, "to": target} | ({} if bare else {"lane": lane}))
    listed = draw(st.permutations(stages))
    graph = {
        "on_full": draw(st.sampled_from(["block", "drop"])),
        "features": ["sequenced_slots", "journal"],
        "ingress": ingress,
        "egress": egress,
        "stages": [{"id": stage, "op": draw(ops)} for stage in listed],
        "connections": connections,
    }
    return {"plan_v": 1, "name": draw(names), "target": "lane_graph", "lane_graph": graph}


plans = ring_plans() | graph_plans()


def compiled(plan: dict[str, Any]) -> tuple[Compilation, PipelineSpec, str]:
    compilation = compile_plan(plan)
    assert compilation.ok, compilation.diagnostics
    assert compilation.spec is not None
    assert compilation.spec_kv is not None
    return compilation, compilation.spec, compilation.spec_kv


def shuffled(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """Return the value with the keys of all objects in random order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@given(plans, st.data())
@settings(max_examples=100, deadline=None)
def test_spec_does_not_depend_on_key_order_description_labels_or_unused_payload(
    plan: dict[str, Any], data: st.DataObject
) -> None:
    compilation, _, kv = compiled(plan)
    other = copy.deepcopy(plan)
    other["description"] = data.draw(st.text("aé\n𝄞", max_size=9))
    other["labels"] = {"team": data.draw(st.text("aé 𝄞", max_size=9))}
    other["lane_graph" if plan["target"] == "single_ring" else "single_ring"] = data.draw(json_values)

    again = compile_plan(shuffled(other, data.draw))

    assert again.spec_kv == kv
    assert again.to_json() == compilation.to_json()
    assert json.loads(json.dumps(again.to_json()))["spec_hash"] == compilation.spec_hash


@given(plans)
@settings(max_examples=150, deadline=None)
def test_compiled_spec_is_valid_and_round_trips(plan: dict[str, Any]) -> None:
    _, spec, kv = compiled(plan)

    assert kv.isascii()
    assert decode(kv) == spec
    assert encode(decode(kv.encode())) == kv
    assert validate_spec(spec) == ()
    assert SCHEMA.is_valid(plan)


@given(ring_plans())
@settings(max_examples=80, deadline=None)
def test_compiled_ring_has_stages_and_dependencies_of_its_plan(plan: dict[str, Any]) -> None:
    _, spec, _ = compiled(plan)
    ring = spec.model
    assert isinstance(ring, SingleRing)

    stages = plan["single_ring"]["stages"]
    assert spec.stages == tuple((stage["id"], stage["op"]) for stage in stages)
    for index, stage in enumerate(ring.stages):
        assert list(stage.depends_on) == sorted(set(stage.depends_on))
        assert all(0 <= position < index for position in stage.depends_on)
        asked = stages[index].get("depends_on", [])
        assert {ring.stages[position].id for position in stage.depends_on} == set(asked)


@given(graph_plans())
@settings(max_examples=150, deadline=None)
def test_lowered_graph_has_same_connections_as_plan(plan: dict[str, Any]) -> None:
    _, spec, _ = compiled(plan)
    graph = spec.model
    assert isinstance(graph, LaneGraph)
    writers = [end.lane for end in graph.endpoints if end.kind == "ingress"]
    readers = [end.lane for end in graph.endpoints if end.kind == "egress"]
    writers += [lane for role in graph.roles for lane in role.tx]
    readers += [lane for role in graph.roles for lane in role.rx]

    assert sorted(writers) == sorted(readers) == list(range(len(graph.lanes)))
    assert connected_pairs(graph) == sorted((link["from"], link["to"]) for link in plan["lane_graph"]["connections"])
    for role in graph.roles:
        if role.kind == "stage":
            (read,), (written,) = role.rx, role.tx
            assert graph.lanes[read].kind == graph.lanes[written].kind
    for number, name in enumerate(expected_stage_order(plan)):
        assert spec.stages[number][0] == name


def connected_pairs(graph: LaneGraph) -> list[tuple[str, str]]:
    """Return the pairs of nodes that are connected by lanes, directly or through inserted roles."""
    reader_of = {lane: role for role in graph.roles for lane in role.rx}
    egress_of = {end.lane: end.name for end in graph.endpoints if end.kind == "egress"}
    pending = [(end.name, end.lane) for end in graph.endpoints if end.kind == "ingress"]
    pending += [(role.name, role.tx[0]) for role in graph.roles if role.kind == "stage"]
    pairs = []
    while pending:
        source, lane = pending.pop()
        if lane in egress_of:
            pairs.append((source, egress_of[lane]))
        elif reader_of[lane].kind == "stage":
            pairs.append((source, reader_of[lane].name))
        else:
            pending += [(source, written) for written in reader_of[lane].tx]
    return sorted(pairs)


def expected_stage_order(plan: dict[str, Any]) -> list[str]:
    """Return the stage ids in topological order.

    Each step takes the first remaining stage, in plan order, whose source stages have all been placed.
    """
    graph = plan["lane_graph"]
    waiting = [stage["id"] for stage in graph["stages"]]
    placed: list[str] = []
    while waiting:
        for name in waiting:
            sources = {link["from"] for link in graph["connections"] if link["to"] == name}
            if sources <= {*placed, *graph["ingress"]}:
                placed.append(name)
                waiting.remove(name)
                break
    return placed


@given(plans)
@settings(max_examples=40, deadline=None)
def test_spec_of_random_plan_can_be_drawn(plan: dict[str, Any]) -> None:
    _, spec, _ = compiled(plan)

    assert to_svg(spec) == to_svg(spec)
    assert to_dot(spec).count("->") == len(compile_plan(plan).to_json()["graph"]["edges"])


@given(plans, plans)
@settings(max_examples=40, deadline=None)
def test_diff_is_empty_for_equal_specs_and_otherwise_symmetric(old: dict[str, Any], new: dict[str, Any]) -> None:
    _, before, before_kv = compiled(old)
    _, after, after_kv = compiled(new)

    forth, back = diff_specs(before, after), diff_specs(after, before)

    assert bool(forth.unified) is (before_kv != after_kv)
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    assert {(opposite[c.change], c.what, c.name, c.new, c.old) for c in forth.changes} == {
        (c.change, c.what, c.name, c.old, c.new) for c in back.changes
    }


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of a JSON value and of every value inside it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, member in members for inner in paths(member, (*path, key)))]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    plan = draw(plans)
    mutant = copy.deepcopy(plan)
    places = paths(plan)
    path = places[draw(st.integers(1, len(places) - 1))]
    parent = mutant
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    how = draw(st.sampled_from(["replace", "remove", "repeat", "add", "swap"]))
    if how == "replace":
        parent[key] = draw(json_values)
    elif how == "remove":
        del parent[key]
    elif how == "repeat" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif how == "swap":
        parent[key] = copy.deepcopy(value_at(plan, places[draw(st.integers(0, len(places) - 1))]))
    elif isinstance(parent, dict):
        parent[draw(st.text(max_size=6))] = draw(json_values)
    return plan, mutant


def value_at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def normalized(plan: dict[str, Any]) -> Any:
    """Return the parts of a plan that determine its spec, with defaults filled in."""
    target = plan["target"]
    payload = copy.deepcopy(plan[target])
    if target == "single_ring":
        defaults = {"shards": 1, "ordering": "strict", "producer": "single", "scheduling": "dedicated"}
        for stage in payload["stages"]:
            stage["depends_on"] = sorted(stage.get("depends_on", []))
    else:
        defaults = {"on_full": "block", "stages": []}
        payload.pop("features", None)
        for connection in payload["connections"]:
            connection.setdefault("lane", {"kind": "events"})
    return plan["name"], target, defaults | payload


@given(mutations())
@settings(max_examples=800, deadline=None)
def test_changed_plan_gets_error_or_new_spec_hash_unless_equivalent(
    pair: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    plan, mutant = pair
    before = compile_plan(plan)

    after = compile_plan(mutant)

    json.dumps(after.to_json(), ensure_ascii=False).encode()
    if not after.ok:
        assert any(diagnostic.severity == "error" for diagnostic in after.diagnostics)
        assert all(d.pointer == "" or d.pointer.startswith("/") for d in after.diagnostics)
        assert all(d.message and d.hint for d in after.diagnostics)
    elif after.spec_hash == before.spec_hash:
        assert normalized(mutant) == normalized(plan)
    if after.ok:
        used = {key: value for key, value in mutant.items() if key == mutant["target"] or "_" not in key}
        assert SCHEMA.is_valid(used | {"plan_v": mutant["plan_v"]})


@given(json_values, st.none() | st.text(max_size=5))
@settings(max_examples=150, deadline=None)
def test_compile_plan_refuses_random_json_values_without_raising(value: Any, target: str | None) -> None:
    for plan in (value, {"plan_v": 1, "target": "lane_graph", "lane_graph": value}, {"single_ring": value}):
        compilation = compile_plan(plan, target=target)

        assert not compilation.ok
        json.dumps(compilation.to_json(), ensure_ascii=False).encode()


@given(plans, st.data())
@settings(max_examples=150, deadline=None)
def test_changed_kv_text_decodes_or_raises_kv_error(plan: dict[str, Any], data: st.DataObject) -> None:
    _, spec, kv = compiled(plan)
    lines = kv.splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    key, _, value = lines[index].partition("=")
    damage = st.sampled_from(["", lines[index] * 2, f"{key}=7\n", f"{key}=a\n", f"{key}.0={value}", "x=\n"])
    lines[index] = data.draw(damage)

    with suppress(KvError):
        damaged = decode("".join(lines))
        if not validate_spec(damaged):
            assert bool(diff_specs(spec, damaged).unified) is (damaged != spec)
            to_svg(damaged)
