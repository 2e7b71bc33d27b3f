import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.compiler import (
    Endpoint,
    GraphLane,
    GraphRole,
    LaneGraph,
    PipelineSpec,
    RingStage,
    SingleRing,
)
from byteor.engine.replay import (
    Decision,
    DryRun,
    PipelineRunner,
    Record,
    StageError,
    Unsupported,
    graph_runner,
    run_pipeline,
)
from byteor.engine.replay.runner import Output, RingRunner, RunResult, fnv1a_64, shard_key_of
from byteor.engine.replay.stages import Action
from byteor.engine.replay.work import LimitExceeded

type MakeRing = Callable[..., PipelineSpec]
type Params = Mapping[str, Any] | None


def records(*payloads: bytes) -> list[Record]:
    return [Record(number, 0, payload) for number, payload in enumerate(payloads, 1)]


def counted(result: RunResult) -> dict[str, tuple[int, ...]]:
    """Return the counters ``in``, ``out``, ``dropped`` and ``errors`` of each stage."""
    return {name: tuple(list(counters.as_json().values())[:4]) for name, counters in result.counters.items()}


def mark(payload: bytes, params: Params) -> bytes | None:
    """Append the parameter ``mark``, by default ``?``. Drop a payload that begins with -; fail if it begins with !."""
    if payload.startswith(b"!"):
        raise ValueError("bang")
    return None if payload.startswith(b"-") else payload + str((params or {}).get("mark", "?")).encode()


OPS = {"mark": mark, "mark:it": mark}


# --- rings


def test_ring_stages_run_in_order_and_dropped_record_skips_later_stages(ring: MakeRing) -> None:
    result = run_pipeline(
        ring("identity", "mark", "mark:it"),
        records(b"a", b"-b", b"c"),
        {"s1": {"mark": 1}, "s2": {"mark": 2}},
        OPS,
    )

    assert result.outputs == (Output("out", 1, b"a12"), Output("out", 3, b"c12"))
    assert counted(result) == {"s0": (3, 3, 0, 0), "s1": (3, 2, 1, 0), "s2": (2, 2, 0, 0)}
    assert (result.actions, result.error) == ((), None)


def test_ring_without_stages_passes_record(ring: MakeRing) -> None:
    assert run_pipeline(ring(), records(b"a")).outputs == (Output("out", 1, b"a"),)


def test_stage_error_stops_ring(ring: MakeRing) -> None:
    result = run_pipeline(ring("identity", "mark"), records(b"a", b"!", b"c"), ops=OPS)

    assert result.outputs == (Output("out", 1, b"a?"),)
    assert counted(result) == {"s0": (2, 2, 0, 0), "s1": (2, 1, 0, 1)}
    assert result.error
    assert (result.error.stage, result.error.sequence) == ("s1", 2)
    assert str(result.error) == "stage 's1' failed on record 2: ValueError: bang"


def test_op_result_of_wrong_type_causes_stage_error(ring: MakeRing) -> None:
    # The op has the wrong type on purpose.
    result = run_pipeline(ring("odd"), records(b"a"), ops={"odd": lambda payload, params: "text"})  # type: ignore[dict-item, return-value]

    assert str(result.error) == "stage 's0' failed on record 1: TypeError: the op returned str, not bytes or None"
    assert counted(result) == {"s0": (1, 0, 0, 1)}


def test_dry_run_lists_side_effects_and_passes_record_on(ring: MakeRing) -> None:
    result = run_pipeline(ring("http_post:http://h:1/x?a=b", "exec:/bin/tr|a|b"), records(b"a", b"b"))

    post = Action("http_post", "s0", "in", "out", "s0", "http://h:1/x?a=b", Decision.DRY_RUN_ONLY)
    execute = Action("exec", "s1", "in", "out", "s1", "/bin/tr|a|b", Decision.DRY_RUN_ONLY)
    assert result.actions == (post, execute, post, execute)
    assert [output.payload for output in result.outputs] == [b"a", b"b"]


class AllowAll(DryRun):
    def decide(self, stage: str, op: str) -> Decision:
        return Decision.ALLOW


def test_failed_side_effect_causes_stage_error_and_is_listed_as_action(ring: MakeRing) -> None:
    runner = PipelineRunner(ring("exec:x"), effects=AllowAll())

    with pytest.raises(StageError, match="stage 's0' failed on record 1: AssertionError: a dry run performs nothing"):
        runner.feed(records(b"a")[0])

    assert [action.decision for action in runner.actions] == [Decision.ALLOW]
    assert runner.counters["s0"].as_json() == {"in": 1, "out": 0, "dropped": 0, "errors": 1, "drops": {}}


def test_action_over_limit_is_not_listed_and_causes_no_stage_error(ring: MakeRing) -> None:
    runner = PipelineRunner(ring("exec:x"), max_actions=1)
    first, second = records(b"a", b"b")
    runner.feed(first)

    with pytest.raises(LimitExceeded, match="more than 1 side effects"):
        runner.feed(second)

    assert len(runner.actions) == 1
    assert runner.counters["s0"].errors == 0


@pytest.mark.parametrize(
    ("ops", "stage_config", "why"),
    [
        (["nothing"], {}, "stage 's0' has an op that is not installed: 'nothing'"),
        (["mark"], {"s0": []}, "parameters of stage 's0': not an object"),
        (
            ["dataguard_check"],
            {"s0": {"on_reject": "stop"}},
            "parameters of stage 's0': /schema: is required",
        ),
    ],
)
def test_unknown_op_or_invalid_parameters_are_unsupported(
    ring: MakeRing, ops: list[str], stage_config: Any, why: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        run_pipeline(ring(*ops), [], stage_config, OPS)

    assert str(caught.value) == why


def test_ring_that_compiler_never_creates_is_unsupported(ring: MakeRing) -> None:
    for shards in (0, 1025, 10**18):
        with pytest.raises(Unsupported, match=f"a ring with {shards} shards"):
            run_pipeline(ring(shards=shards, shard_key="k"), [])
    with pytest.raises(Unsupported, match="a ring with 2 shards and the shard key None"):
        run_pipeline(ring(shards=2), [])
    twice = ring("identity", "identity")
    assert not isinstance(twice.model, LaneGraph)
    stage = twice.model.stages[0]
    object.__setattr__(twice.model, "stages", (stage, stage))
    with pytest.raises(Unsupported, match="two stages have the id 's0'"):
        run_pipeline(twice, [])


# --- shards


@pytest.mark.parametrize(
    ("data", "value"),  # the published test vectors
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_fnv1a_64_returns_known_hashes(data: bytes, value: int) -> None:
    assert fnv1a_64(data) == value


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (b'{"user": {"id": "\\u00e9"}}', "é".encode()),
        (b'{"user": {"id": 1.0}}', b"1"),
        (b'{"user": {"id": "1"}}', b"1"),
        (b'{"user": {"id": null}}', b"null"),
        (b'{"user": {"id": {"b": 1, "a": []}}}', b'{"a":[],"b":1}'),
        (b'{"user": {"id": ""}}', b""),
        (b'{"user": {}}', b""),
        (b'{"user": [{"id": 1}]}', b""),
        (b"[]", b""),
        (b"no JSON", b""),
        (b'{"user": {"id": "\\ud800"}}', b""),
    ],
)
def test_shard_key_is_read_from_payload_field(payload: bytes, key: bytes) -> None:
    assert shard_key_of(payload, "user.id") == key


@given(st.lists(st.dictionaries(st.just("k"), st.sampled_from(["a", "b", "c", 1, None])), max_size=20))
def test_shards_do_not_change_output_and_each_key_has_one_shard(items: list[dict[str, Any]]) -> None:
    stages = (RingStage("s0", "mark"),)
    strict = PipelineSpec("r", SingleRing("in", "out", 1, "strict", "single", "dedicated", None, stages))
    per_key = PipelineSpec("r", SingleRing("in", "out", 3, "per_key", "single", "dedicated", "k", stages))
    given = records(*(json.dumps(item).encode() for item in items))

    assert run_pipeline(per_key, given, ops=OPS).outputs == run_pipeline(strict, given, ops=OPS).outputs

    runner = PipelineRunner(per_key, ops=OPS)
    assert isinstance(runner.model, RingRunner)
    for record in given:
        key = shard_key_of(record.payload, "k")
        assert runner.model.shard_of(record.payload) == fnv1a_64(key) % 3


# --- graphs


def lanes(*names: str) -> tuple[GraphLane, ...]:
    return tuple(GraphLane(name, "events") for name in names)


def stage(name: str, rx: int, tx: int, op: str = "mark") -> GraphRole:
    return GraphRole(name, "stage", (rx,), (tx,), op)


def spec(
    lane_names: str, ends: Mapping[str, int], *roles: GraphRole, egresses: tuple[str, ...] = ("out",)
) -> PipelineSpec:
    endpoints = tuple(Endpoint(name, "egress" if name in egresses else "ingress", lane) for name, lane in ends.items())
    return PipelineSpec("g", LaneGraph("drop", lanes(*lane_names.split()), endpoints, roles))


FAN = spec(
    # in -> a -> fan-out to b and c -> out
    "in.a a:bridge a:fanout a.b a.c b.out c.out out:in",
    {"in": 0, "out": 7},
    stage("a", 0, 1),
    GraphRole("a:bridge", "bridge", (1,), (2,)),
    GraphRole("a:router", "router", (2,), (3, 4)),
    stage("b", 3, 5),
    stage("c", 4, 6),
    GraphRole("out:merge", "merge", (5, 6), (7,), policy="round_robin"),
)
MARKS = {name: {"mark": name} for name in "abcdef"}


def test_router_copies_records_and_merge_alternates_between_inputs() -> None:
    result = run_pipeline(FAN, records(b"1", b"-2", b"3"), MARKS, OPS)

    assert result.outputs == (
        Output("out", 1, b"1ab"),
        Output("out", 1, b"1ac"),
        Output("out", 3, b"3ab"),
        Output("out", 3, b"3ac"),
    )
    assert counted(result) == {"a": (3, 2, 1, 0), "b": (2, 2, 0, 0), "c": (2, 2, 0, 0)}


def test_merge_reads_lanes_round_robin_in_listed_order() -> None:
    """Two copies arrive on lane 4 and one on lane 3, so the merge reads lanes 4, 3 and 4."""
    twice = spec(
        "in r:1 r:2 b.m m2 d.m x y m",
        {"in": 0, "out": 8},
        GraphRole("r", "router", (0,), (1, 2, 6)),
        GraphRole("r2", "router", (2,), (5, 7)),
        GraphRole("m2", "merge", (5, 7), (4,), policy="round_robin"),
        stage("b", 1, 3),
        GraphRole("m", "merge", (4, 3), (8,), policy="round_robin"),
    )

    assert [output.payload for output in run_pipeline(twice, records(b"1"), MARKS, OPS).outputs] == [b"1", b"1b", b"1"]


def test_roles_run_in_topological_order_regardless_of_spec_order() -> None:
    model = FAN.model
    assert isinstance(model, LaneGraph)
    backwards = PipelineSpec("g", LaneGraph("block", model.lanes, model.endpoints, model.roles[::-1]))

    assert (
        run_pipeline(backwards, records(b"1"), MARKS, OPS).outputs
        == run_pipeline(FAN, records(b"1"), MARKS, OPS).outputs
    )


def test_stage_error_stops_graph_and_record_has_no_output() -> None:
    result = run_pipeline(FAN, records(b"1", b"!", b"3"), MARKS, OPS)

    assert [output.sequence for output in result.outputs] == [1, 1]
    assert str(result.error) == "stage 'a' failed on record 2: ValueError: bang"


def test_record_outputs_follow_egress_order() -> None:
    two = spec("in a b", {"z": 2, "in": 0, "y": 1}, GraphRole("r", "router", (0,), (1, 2)), egresses=("z", "y"))

    assert run_pipeline(two, records(b"1")).outputs == (Output("z", 1, b"1"), Output("y", 1, b"1"))


def test_graph_action_names_its_lanes() -> None:
    one = spec("in.a a.out", {"in": 0, "out": 1}, stage("a", 0, 1, "exec:x"))

    assert run_pipeline(one, records(b"1")).actions == (
        Action("exec", "a", "in.a", "a.out", "a", "x", Decision.DRY_RUN_ONLY),
    )


def test_records_may_enter_at_ingress_or_lane() -> None:
    def outputs(entry: str | None) -> list[bytes]:
        runner = PipelineRunner(FAN, stage_config=MARKS, ops=OPS, entry=entry)
        return [payload for _, payload in runner.feed(Record(1, 0, b"1"))]

    assert outputs(None) == outputs("in") == outputs("in.a") == outputs("another name") == [b"1ab", b"1ac"]
    assert outputs("a.c") == [b"1c"]
    assert outputs("out:in") == [b"1"]


def test_records_need_chosen_entry_when_graph_has_several_ingresses() -> None:
    two = spec("a b o", {"in": 0, "too": 1, "out": 2}, GraphRole("m", "merge", (0, 1), (2,), policy="round_robin"))

    with pytest.raises(Unsupported, match="records must enter at a lane or an ingress; the ingresses are: in, too"):
        run_pipeline(two, records(b"1"))
    with pytest.raises(Unsupported, match="records must enter at a lane or an ingress; the ingresses are: none"):
        run_pipeline(spec("a", {"out": 0}), records(b"1"))
    assert PipelineRunner(two, entry="too").feed(Record(1, 0, b"1")) == [("out", b"1")]


def test_run_stops_if_record_causes_too_many_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair of a router and a merge doubles the number of copies."""
    roles = []
    for at in range(0, 90, 3):
        roles += [
            GraphRole(f"r{at}", "router", (at,), (at + 1, at + 2)),
            GraphRole(f"m{at}", "merge", (at + 1, at + 2), (at + 3,), policy="round_robin"),
        ]
    doubling = spec(" ".join(f"l{at}" for at in range(91)), {"in": 0, "out": 90}, *roles)

    with pytest.raises(LimitExceeded, match="record 1 causes more than 65536 deliveries"):
        run_pipeline(doubling, records(b"1"))

    monkeypatch.setattr(graph_runner, "MAX_DELIVERIES", 8)
    # Each record causes 8 deliveries: the router and the merge make two each, and the other four roles make one each.
    assert len(run_pipeline(FAN, records(b"1", b"2"), MARKS, OPS).outputs) == 4
    monkeypatch.setattr(graph_runner, "MAX_DELIVERIES", 7)
    with pytest.raises(LimitExceeded):
        run_pipeline(FAN, records(b"1"), MARKS, OPS)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (spec("a", {"in": 0}, stage("s", 0, 9)), "there is no lane 9"),
        (spec("a", {"in": -1}), "there is no lane -1"),
        (
            spec("a b c", {"in": 0}, GraphRole("s", "stage", (0, 1), (2,), "identity")),
            "'s': a stage cannot read 2 and write 1 lanes",
        ),
        (
            spec("a b c", {"in": 0}, GraphRole("s", "stage", (0,), (1, 2), "identity")),
            "'s': a stage cannot read 1 and write 2 lanes",
        ),
        (spec("a b", {"in": 0}, GraphRole("s", "bridge", (0,), ())), "'s': a bridge cannot read 1 and write 0 lanes"),
        (spec("a b", {"in": 0}, GraphRole("s", "router", (0,), ())), "'s': a router cannot read 1 and write 0 lanes"),
        (
            spec("a b c", {"in": 0}, GraphRole("s", "router", (0, 1), (2,))),
            "'s': a router cannot read 2 and write 1 lanes",
        ),
        (
            spec("a b c", {"in": 0}, GraphRole("s", "merge", (0,), (1, 2))),
            "'s': a merge cannot read 1 and write 2 lanes",
        ),
        (spec("a b", {"in": 0}, GraphRole("s", "merge", (), (1,))), "'s': a merge cannot read 0 and write 1 lanes"),
        (spec("a b", {"in": 0, "in2": 1}, stage("s", 0, 1)), "lane 'b' is written twice"),
        (spec("a b c", {"in": 0}, stage("s", 0, 1), stage("t", 0, 2)), "lane 'a' is read twice"),
        (spec("a b", {"in": 0, "out": 0}, stage("s", 0, 1)), "lane 'a' is read twice"),
        (spec("i a b", {"in": 0}, stage("s", 1, 2), stage("t", 2, 1)), "the graph has a cycle"),
        (spec("i a", {"in": 0}, stage("s", 1, 1)), "the graph has a cycle"),
        (spec("i a b c", {"in": 0}, stage("s", 0, 1), stage("s", 2, 3)), "two stages have the id 's'"),
        (
            PipelineSpec(
                "g",
                LaneGraph("block", lanes("a", "b"), (Endpoint("x", "ingress", 0), Endpoint("x", "egress", 1)), ()),
            ),
            "two endpoints have the same name",
        ),
    ],
)
def test_graph_that_compiler_never_creates_is_unsupported(broken: PipelineSpec, why: str) -> None:
    with pytest.raises(Unsupported) as caught:
        run_pipeline(broken, [], ops=OPS)

    assert why in str(caught.value)
