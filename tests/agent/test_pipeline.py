from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from byteor.agent import resource_meter
from byteor.agent.configuration import ActivationError, AgentRuntimeConfig
from byteor.agent.pipeline import BundleRunner
from byteor.agent.sample import InvalidSample, read_sample
from byteor.agent.state_folder import StateFolder
from byteor.agent.tuning import isolate_cpu, tune
from byteor.engine.canonical import sha256
from byteor.engine.compiler import compile_plan
from byteor.engine.replay import Frame, Record, encode_frame, encode_journal

HASH = sha256(b"bundle")
GRAPH = {
    "plan_v": 1,
    "name": "fan",
    "target": "lane_graph",
    "lane_graph": {
        "ingress": ["first", "second"],
        "egress": ["out"],
        "stages": [{"id": "a", "op": "identity"}],
        "connections": [
            {"from": "first", "to": "a"},
            {"from": "second", "to": "a"},
            {"from": "a", "to": "out"},
        ],
    },
}


def config(plane: Any, **members: Any) -> AgentRuntimeConfig:
    return AgentRuntimeConfig.parse(plane.config | members)


def test_input_and_output_are_stored_for_incidents(plane: Any, tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    records = [Record(5, 1, b'{"price":1}'), Record(6, 2, b"no json")]

    active = BundleRunner(state, records, {}).start(HASH, plane.spec, plane.config)

    assert active.counts == {"records_in": 2, "records_out": 1, "drops": 1, "errors": 0}
    assert state.capture(HASH) == {
        "journal/quotes_in.bin": encode_journal(records),
        "expected/quotes_out.bin": encode_frame(Frame(5, b'{"price":1}')),
    }


def test_sample_records_enter_graph_at_first_ingress(plane: Any, tmp_path: Path) -> None:
    kv = compile_plan(GRAPH).spec_kv
    assert kv is not None
    state = StateFolder(tmp_path)

    active = BundleRunner(state, [Record(1, 0, b"x")], {}).start(HASH, kv.encode(), plane.config | {"stage_config": {}})

    assert active.counts["records_out"] == 1
    assert state.capture(HASH).keys() == {"journal/first.bin", "expected/out.bin"}


def test_egress_name_with_path_fails_activation(plane: Any, tmp_path: Path) -> None:
    malicious_spec = plane.spec.replace(b"quotes_out", b"../../escaped")

    with pytest.raises(ActivationError, match=r"spec\.kv: .*egress"):
        BundleRunner(StateFolder(tmp_path / "state"), [], {}).start(HASH, malicious_spec, plane.config)

    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    "members",
    [
        {"tuning_profile": "fastest"},
        {"wait": None},
        {"stage_config": []},
        {"env": None},
        {"env": {"A": 1}},
        {"env": {"A": {"secret_ref": 1}}},
        {"env": {"A": {"secret_ref": "B", "more": 1}}},
    ],
    ids=repr,
)
def test_invalid_configuration_values_fail_activation(plane: Any, members: Any) -> None:
    with pytest.raises(ActivationError, match=r"runtime_config\.json"):
        config(plane, **members)


def test_unknown_top_level_configuration_members_are_ignored(plane: Any) -> None:
    assert config(plane, more=1) == config(plane)


def test_environment_variables_are_shown_without_secret_values(plane: Any) -> None:
    parsed = config(plane, env={"B": {"secret_ref": "DB"}, "A": "1"})

    assert parsed.shown_env() == [["A", "1"], ["B", "secret_ref:DB"]]
    assert parsed.resolve({"DB": "swordfish"}.get) == {"A": "1", "B": "swordfish"}
    assert parsed.resolve(lambda _: "") == {"A": "1", "B": ""}


@pytest.mark.parametrize("profile", ["default", "low-latency"])
def test_default_and_low_latency_profiles_apply_only_wait_strategy(plane: Any, profile: str) -> None:
    assert tune(config(plane, tuning_profile=profile, wait="backoff")) == {
        "profile": profile,
        "applied": {"wait": "backoff"},
        "degraded": [],
        "failed": [],
    }


def test_isolated_core_tuning_reports_cpu_or_why_process_could_not_be_moved(plane: Any) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    isolated = config(plane, tuning_profile="isolated-core")

    assert tune(isolated, lambda: 3)["applied"] == {"wait": "spin", "cpu": 3}
    degraded = tune(isolated, refuse)
    assert degraded["applied"] == {"wait": "spin"}
    assert degraded["degraded"] == [{"setting": "cpu", "reason": "[Errno 1] Operation not permitted"}]


def test_agent_process_moves_to_first_isolated_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Any] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: pinned.append((pid, cpus)))
    isolated = tmp_path / "isolated"

    for text, cpu in (("2-3,7\n", 2), ("5\n", 5)):
        isolated.write_text(text)
        assert isolate_cpu(isolated) == cpu
    isolated.write_text("\n")
    with pytest.raises(OSError, match="this host has no isolated CPU"):
        isolate_cpu(isolated)
    assert pinned == [(0, {2}), (0, {5})]


def test_sample_file_may_contain_one_payload_per_line(tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(b'{"a":1}\r\n\n{"b":2}')

    records = read_sample(path)

    assert [(record.sequence, record.payload) for record in records] == [(1, b'{"a":1}'), (2, b'{"b":2}')]


def test_sample_file_may_be_journal(tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(encode_journal([Record(9, 1, b"b"), Record(4, 2, b"a")]))

    assert read_sample(path) == (Record(4, 2, b"a"), Record(9, 1, b"b"))


def test_invalid_sample_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sample"
    path.write_bytes(b"BYTJ\x09\x00\x00\x00")

    with pytest.raises(InvalidSample, match="unknown journal version"):
        read_sample(path)
    with pytest.raises(InvalidSample, match="No such file"):
        read_sample(tmp_path / "missing")
    monkeypatch.setattr("byteor.agent.sample._MAX_BYTES", 7)
    with pytest.raises(InvalidSample, match="more than 7 bytes"):
        read_sample(path)


def test_resource_meter_returns_plausible_cpu_memory_and_disk_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = resource_meter.ResourceMeter(tmp_path)

    readings = usage.read()

    assert usage.uptime_s == 0
    # The ignored errors: ``read`` returns JSON, whose values have the type ``object``.
    assert readings["cpu_percent"] >= 0  # type: ignore[operator]
    assert 1_000_000 < readings["memory_bytes"] < 10**11  # type: ignore[operator]
    assert readings["disk_free_bytes"] > 0  # type: ignore[operator]

    def raise_missing(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", raise_missing)
    assert usage.read()["memory_bytes"] > 1_000_000  # type: ignore[operator]
