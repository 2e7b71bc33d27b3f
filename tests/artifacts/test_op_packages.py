"""Regressions of pipelines with ops of installed packages, which may be unstable, change, disappear or crash."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apps.artifacts.models import Verdict
from apps.artifacts.services import children, fixture_batches, regression_runs
from apps.artifacts.services.regression_details import read_details
from apps.releases.models import ConfigBundle, Regression
from byteor.engine.machines import RegressionStatus
from byteor_cloud.captures import sealing
from byteor_cloud.captures.engine_version import engine_digest
from byteor_cloud.computing import computations
from byteor_cloud.worker.jobs import Requeued
from tests.artifacts.kept import configured, events, keep, outcomes, requested
from tests.engine.compiler.test_ops import install
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

# The body of the function of each op. ``state`` is a list that lives as long as the process.
OPS = {
    "honest": "return payload + (params or {}).get('add', '').encode()",
    "clock": "return b'%d' % time.perf_counter_ns()",
    "counter": "state.append(payload); return payload + b'%d' % len(state)",
    "hashing": "return ' '.join({payload.decode() + letter for letter in 'abcdefgh'}).encode()",
    "dying": "return os.abort() if payload == b'die' else payload",
}
MODULE = """
import os
import time

state = []


def validate(argument):
    return None


def process(payload, params):
    {}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install each op in a package of its own, for this process and for its child processes."""
    for name, code in OPS.items():
        (tmp_path / f"acme_{name}.py").write_text(MODULE.format(code))
        install(tmp_path, f"acme_{name}", {name: f"acme_{name}"})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sealing, "environment", partial(sealing.environment, [str(tmp_path)]))
    importlib.invalidate_caches()
    computations.installed_ops.cache_clear()
    yield tmp_path
    computations.installed_ops.cache_clear()
    for name in OPS:
        sys.modules.pop(f"acme_{name}", None)


def ring(world: World, name: str, *ops: str, **config: Mapping[str, Any]) -> ConfigBundle:
    """Create a config bundle of a ring with the stages ``s0``, ``s1`` and so on, one for each op."""
    stages: list[dict[str, Any]] = [{"id": f"s{number}", "op": op} for number, op in enumerate(ops)]
    for number, stage in enumerate(stages[1:]):
        stage["depends_on"] = [f"s{number}"]
    return configured(world, name, world.version(content=plan(stages=stages)), **(config or {"s0": {}}))


def finished(row: Regression) -> Regression:
    run_jobs()
    row.refresh_from_db()
    assert row.status not in {RegressionStatus.QUEUED, RegressionStatus.RUNNING}
    return row


def stages(row: Regression) -> list[tuple[str | None, str | None]]:
    """Return the outcome of each result, and the unstable stage that it names, or None."""
    results = read_details(row, with_payloads=False).results
    return [(each["outcome"], each["stage"]) for each in results]


@pytest.mark.usefixtures("site")
def test_stable_op_is_compared_and_stage_with_unstable_op_is_named(world: World) -> None:
    now = ring(world, "now", "identity", "honest")
    keep(world, now, [b"one", b"two"], [b"three"], [b"four", b"five"])
    same = ring(world, "same", "honest", "honest")
    other = configured(world, "other", same.version, s1={"add": "!"})

    equal, different = finished(requested(world, same, now)), finished(requested(world, other, now))

    assert (equal.status, stages(equal)) == ("passed", [("equal", None)] * 3)
    assert (different.status, stages(different)) == ("differs", [("different", None)] * 3)
    assert [(each["kind"], each["count"]) for each in different.groups] == [("bytes", 5)]
    assert equal.work_candidate == equal.work_baseline > 0
    for name in ("clock", "counter", "hashing"):
        row = finished(requested(world, ring(world, name, "identity", "honest", name), now))
        assert (row.status, stages(row)) == ("failed", [("unstable", "s2")] * 3), name
        shown = read_details(row, with_payloads=False).results
        assert [(each["stage"], each["error"]) for each in shown] == [("s2", None)] * 3
        assert row.groups == []
        assert "3 unstable" in row.summary
        assert "| `stage 's2' gave different results for the same records` | 3 |" in row.summary
        assert events(row) == ["request", "start", "fail"]
    unstable = ring(world, "unstable now", "hashing", "identity")
    row = finished(requested(world, now, unstable))
    assert (row.status, stages(row)) == ("failed", [("unstable", "s0")] * 3)


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_op_that_counts_is_unstable_for_each_fixture(world: World, count: int) -> None:
    stable, counting = ring(world, "stable", "identity"), ring(world, "counting", "counter")
    keep(world, stable, *([b"%d" % number] for number in range(count)))

    row = finished(requested(world, counting, stable))

    assert stages(row) == [("unstable", "s0")] * count


@pytest.mark.usefixtures("site")
def test_op_that_counts_is_unstable_in_graph_with_single_fixture(world: World) -> None:
    connections = [("a", "mark"), ("mark", "tail"), ("tail", "out")]
    content = {
        "plan_v": 1, "name": "quotes", "target": "lane_graph",
        "lane_graph": {
            "ingress": ["a"], "egress": ["out"],
            # The stages are not listed in the order in which records pass through them.
            "stages": [{"id": "tail", "op": "honest"}, {"id": "mark", "op": "counter"}],
            "connections": [{"from": source, "to": target} for source, target in connections],
        },
    }  # fmt: skip
    graph = configured(world, "graph", world.version(content=content), tail={})
    stable = ring(world, "stable", "honest")
    keep(world, stable, [b"one"], lane="a")

    row = finished(requested(world, graph, stable))

    assert (row.status, stages(row)) == ("failed", [("unstable", "mark")])


def test_fixtures_fail_if_candidate_lacks_op_and_are_not_tested_if_baseline_lacks_op(world: World, site: Path) -> None:
    builtin, honest = ring(world, "built in", "identity"), ring(world, "packaged", "honest")
    keep(world, builtin, [b"one"], [b"two"])
    (site / "acme_honest-1.0.dist-info" / "entry_points.txt").unlink()
    detail = "stage 's0' has an op that is not installed: 'honest'"

    candidate = finished(requested(world, honest, builtin))
    baseline = finished(requested(world, builtin, honest))

    assert (candidate.status, stages(candidate)) == ("failed", [("failed", None)] * 2)
    assert (baseline.status, stages(baseline)) == ("passed", [("not_tested", None)] * 2)
    assert "nothing was tested" in baseline.summary
    errors = list(Verdict.objects.order_by("pk").values_list("error", flat=True))
    assert errors == [detail] * 2 + [f"the baseline cannot run: {detail}"] * 2
    assert f"| `{detail}` | 2 |" in candidate.summary
    shown = [read_details(each, with_payloads=False).results[0]["error"] for each in (candidate, baseline)]
    assert shown == errors[1:3]
    install_again(site)
    again = finished(requested(world, builtin, honest))
    assert (again.status, stages(again), again.reused) == ("passed", [("equal", None)] * 2, 0)


def install_again(site: Path) -> None:
    (site / "acme_honest-1.0.dist-info" / "entry_points.txt").write_text("[byteor.stages]\nhonest = acme_honest\n")


def test_engine_digest_covers_version_and_files_of_used_packages(site: Path) -> None:
    used, other = ["honest", "identity"], ["clock:1", "identity"]
    first, of_other, builtin = engine_digest(used), engine_digest(other), engine_digest(["identity"])
    assert len({first, of_other, builtin, engine_digest([*used, *other])}) == 4
    assert engine_digest(["unknown"]) == builtin
    assert engine_digest(["honest:2"]) == first

    found = {first}
    module, metadata = site / "acme_honest.py", site / "acme_honest-1.0.dist-info"
    for path, text in (
        (module, "VALUE = 2\n"),
        (metadata / "RECORD", "acme_honest.py,,\nacme_honest_data.txt,,\n"),
        (site / "acme_honest_data.txt", "data"),
        (metadata / "METADATA", "Metadata-Version: 2.1\nName: acme_honest\nVersion: 1.1\n"),
        (metadata / "entry_points.txt", "[byteor.stages]\nhonest = acme_honest:VALUE\n"),
    ):
        path.write_text(text)
        found.add(engine_digest(used))
    (site / "__pycache__").mkdir(exist_ok=True)
    (site / "__pycache__" / "acme_honest.cpython-313.pyc").write_bytes(b"compiled")
    found.add(engine_digest(used))

    assert len(found) == 6  # the first digest, and one for each change except the compiled file
    assert (engine_digest(other), engine_digest(["identity"])) == (of_other, builtin)


def test_attempt_of_regression_fails_and_stores_nothing_if_package_changes(
    world: World, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, candidate = ring(world, "now", "honest"), ring(world, "next", "identity", "honest")
    keep(world, now, [b"one"])
    row = requested(world, candidate, now)
    run_in_child = children.run_in_child
    module = site / "acme_honest.py"

    def change_between(request: Mapping[str, Any], **options: Any) -> Any:
        outcome = run_in_child(request, **options)
        module.write_text(module.read_text() + "# changed\n")
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(children, "run_in_child", change_between)
        with pytest.raises(children.ChildDied, match="an op package was changed"):
            regression_runs.run(str(row.pk))
    row.refresh_from_db()
    assert (row.status, outcomes(row), Verdict.objects.count()) == ("running", [(None, None)], 0)

    row = finished(row)

    assert (row.status, stages(row), row.computed) == ("passed", [("equal", None)], 1)
    assert Verdict.objects.count() == 1


@pytest.mark.usefixtures("site")
def test_fixture_that_kills_its_process_fails_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now, candidate = ring(world, "now", "identity"), ring(world, "next", "dying")
    keep(world, now, [b"one"], [b"die"], [b"three"])

    row = finished(requested(world, candidate, now))

    died = ("failed", "the process exited without an outcome")
    assert (row.status, outcomes(row)) == ("failed", [("equal", None), died, ("equal", None)])
    assert Verdict.objects.count() == 2
    again = finished(requested(world, candidate, now))
    assert (again.status, again.reused, again.computed, outcomes(again)) == ("failed", 2, 1, outcomes(row))


@pytest.mark.usefixtures("site")
def test_regression_with_op_of_package_progresses_in_each_quantum(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression_runs, "QUANTUM_S", 0)
    monkeypatch.setattr(regression_runs, "_TICK_S", 0.01)
    monkeypatch.setattr(children, "_TICK_S", 0.01)
    monkeypatch.setattr(fixture_batches, "_PACKAGE_ITEMS", 2)
    now = ring(world, "now", "identity")
    candidate = ring(world, "next", "honest", s0={"add": "!"})
    keep(world, now, [b"one"], [b"two"], [b"three"])
    row = requested(world, candidate, now)

    done = 0
    for _ in range(3):
        try:
            regression_runs.run(str(row.pk))
            break
        except Requeued:
            row.refresh_from_db()
            assert row.progress_done > done
            done = row.progress_done

    row.refresh_from_db()
    assert (row.status, row.computed) == ("differs", 3)
