"""Runs of regressions: several at the same time, interrupted, and with fixtures that disappear."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Fixture, RegressionResult, Verdict, VerdictExample
from apps.artifacts.services import children, fixture_batches, regression_runs
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regressions
from byteor.engine.replay import Result
from byteor_cloud.captures.spawning import Child
from byteor_cloud.errors import Conflict, Unavailable
from byteor_cloud.storage import blobs
from byteor_cloud.worker import jobs
from byteor_cloud.worker.jobs import Claim, ClaimLost, Requeued
from byteor_cloud.worker.outcomes import take_over_job
from byteor_cloud.worker.process import Worker
from tests.artifacts.kept import CHECK, MASK, OTHER_MASK, cards, configured, events, keep, outcomes, requested
from tests.patience import PATIENCE_S, wait_until
from tests.races import Race
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db


def changed(world: World, now: ConfigBundle, name: str = "next") -> ConfigBundle:
    return configured(world, name, now.version, check=CHECK, redact=OTHER_MASK)


# -- workers


def shown(row: Regression) -> Any:
    """Return the results of a finished regression without what differs between two runs, such as verdict ids."""
    row.refresh_from_db()
    results = RegressionResult.objects.filter(regression=row).order_by("pk")
    groups = [{name: value for name, value in each.items() if name != "verdict_id"} for each in row.groups]
    columns = ("fixture_id", "baseline", "outcome", "verdict__groups", "verdict__records", "verdict__work_candidate")
    examples = [
        VerdictExample.objects.filter(verdict_id=each["verdict_id"], group=each["id"]).get().example
        for each in row.groups
    ]
    return (
        row.status, groups, examples, row.summary, row.work_candidate, row.work_baseline, row.progress_done,
        list(results.values_list(*columns)),
    )  # fmt: skip


def test_results_of_one_and_four_workers_are_equal_and_each_verdict_is_computed_once(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixture_batches, "_ITEMS", 15)
    world = World("acme")
    now = configured(world)
    required = {"schema": {"type": "object", "required": ["id"]}}
    keep(world, now, *[[*cards(number), b'{"no":%d}' % number, b"["] for number in range(30)])
    candidates = []
    for number in range(4):  # specs that differ, so that their regressions may run at the same time
        ops = {f"copy{number}": "identity", "check": "dataguard_check", "redact": "dataguard_redact"}
        stages: list[dict[str, Any]] = [{"id": id, "op": op} for id, op in ops.items()]
        for before, stage in pairwise(stages):
            stage["depends_on"] = [before["id"]]
        version = world.version(content=plan(stages=stages))
        check = [CHECK, required, {**required, "on_reject": "stop"}, CHECK][number]
        rule = [MASK, MASK, OTHER_MASK, {"rules": ["card:hash"]}][number]
        candidates.append(configured(world, f"next {number}", version, check=check, redact=rule))

    def work(workers: int) -> list[Any]:
        rows = [requested(world, each, now) for each in candidates for _ in range(2)]
        concurrently(*[lambda: Worker(has_clock=False).run(until_idle=True)] * workers)
        found = [shown(row) for row in rows]
        assert found[::2] == found[1::2]
        for row in rows:
            row.refresh_from_db()
        assert sorted((row.computed, row.reused) for row in rows) == [(0, 30)] * 4 + [(30, 0)] * 4
        assert Verdict.objects.count() == 120
        assert [events(row)[:2] for row in rows] == [["request", "start"]] * 8
        assert [len(events(row)) for row in rows] == [3] * 8
        return found[::2]

    one = work(1)
    Verdict.objects.all().delete()
    Regression.objects.all().delete()
    four = work(4)

    assert one == four
    assert [each[0] for each in one] == ["passed", "differs", "differs", "differs"]
    assert [len(each[1]) for each in one] == [0, 1, 2, 1]


# -- interruptions


@pytest.fixture
def stopped_children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Pause each child process as soon as it starts, so that it never responds. Return the processes."""
    started: list[Child] = []

    def stop(*arguments: Any, **options: Any) -> Child:
        process = Child(*arguments, **options)
        os.kill(process.pid, signal.SIGSTOP)
        started.append(process)
        return process

    monkeypatch.setattr(children, "Child", stop)
    return started


class LostClaim(Claim):
    """A claim that is lost when ``is_lost`` is set."""

    is_lost = False

    def ensure(self) -> None:
        if self.is_lost:
            raise ClaimLost

    confirm = ensure


def cancel(row: Regression, world: World, _: LostClaim) -> None:
    regressions.cancel(row, reason="a mistake", actor=world.operator.actor)


def delete(row: Regression, _: World, __: LostClaim) -> None:
    row.delete()


def delete_candidate(row: Regression, _: World, __: LostClaim) -> None:
    assert row.config_bundle is not None
    row.config_bundle.delete()


def lose_claim(_: Regression, __: World, claim: LostClaim) -> None:
    claim.is_lost = True


@pytest.mark.parametrize(
    ("act", "status", "raised"),
    [
        (cancel, "cancelled", None),
        (delete, None, None),
        (delete_candidate, None, None),
        (lose_claim, "running", ClaimLost),
    ],
)
def test_interrupted_regression_kills_its_processes_and_stores_no_verdicts(
    concurrently: Race,
    monkeypatch: pytest.MonkeyPatch,
    stopped_children: list[Child],
    act: Callable[[Regression, World, LostClaim], None],
    status: str | None,
    raised: type[BaseException] | None,
) -> None:
    monkeypatch.setattr(fixture_batches, "_ITEMS", 1)
    world, claim, errors = World("acme"), LostClaim(), list[BaseException]()
    now = configured(world)
    keep(world, now, cards(1), cards(2), cards(3))
    row = requested(world, changed(world, now), now)

    def run() -> None:
        try:
            regression_runs.run(str(row.pk), claim)
        except BaseException as error:  # ClaimLost is not an Exception
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: len(stopped_children) == 2)
    act(row, world, claim)
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert [type(error) for error in errors] == ([] if raised is None else [raised])
    assert [process.kill() for process in stopped_children] == [-signal.SIGKILL] * 2
    assert Verdict.objects.count() == 0
    left = Regression.objects.filter(pk=row.pk).first()
    assert (left and left.status) == status
    if left is not None:
        assert (left.progress_done, left.progress_total) == (0, 3)
        assert outcomes(left) == [(None, None)] * 3
        assert events(left) == ["request", "start", *(["cancel"] if status == "cancelled" else [])]
    if status == "cancelled":
        with pytest.raises(Conflict) as refused:
            regressions.cancel(row, actor=world.operator.actor)
        assert refused.value.reason == "regression.ended"
        regression_runs.run(str(row.pk))
        assert outcomes(row) == [(None, None)] * 3


def test_regression_of_deleted_environment_does_not_run(world: World) -> None:
    now = configured(world)
    keep(world, now, cards(1))
    row = requested(world, changed(world, now), now)
    world.dev.deleted_at = timezone.now()
    world.dev.save()

    run_jobs()
    regression_runs.run("0" * 32)

    assert events(row) == ["request"]
    assert not ProcrastinateJob.objects.exists()


def test_regression_progresses_in_each_quantum_until_it_is_completed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression_runs, "QUANTUM_S", 0)
    monkeypatch.setattr(regression_runs, "PROCESSES", 1)
    monkeypatch.setattr(regression_runs, "_TICK_S", 0.01)
    monkeypatch.setattr(fixture_batches, "_ITEMS", 2)
    now = configured(world)
    # Each fixture takes longer than a tick of the child process, so that the first batch can pause after one fixture.
    keep(world, now, *[cards(number, 8_000) for number in range(3)])
    row = requested(world, configured(world, "next", now.version, check=CHECK, redact=SLOW), now)
    done = [0]

    while True:
        with suppress(Requeued):
            regression_runs.run(str(row.pk))
        row.refresh_from_db()
        if row.status != "running":
            break
        assert row.progress_done > done[-1]
        done.append(row.progress_done)

    assert done in ([0, 1, 2], [0, 1], [0, 2], [0])
    assert (row.status, row.computed, row.progress_done) == ("differs", 3, 3)
    assert Verdict.objects.count() == 3


SLOW = {"rules": [*OTHER_MASK["rules"], *(f"field{number}:drop" for number in range(300))]}


@pytest.mark.parametrize("error", [Unavailable("The blob store is not available."), OSError(5, "Input/output error")])
def test_regression_is_retried_after_storage_outage_and_keeps_its_verdicts(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    now = configured(world)
    first, _ = keep(world, now, cards(1), cards(2))
    row = requested(world, changed(world, now), now)

    copy_to = blobs.copy_to

    def fail(content_hash: str, target: Any) -> None:
        if content_hash != first.artifact.content_hash:
            raise error
        copy_to(content_hash, target)

    with monkeypatch.context() as patch:
        patch.setattr(fixture_batches, "_ITEMS", 1)
        patch.setattr(blobs, "copy_to", fail)
        patch.setattr(regression_runs, "PROCESSES", 1)
        with pytest.raises(type(error)) as raised:
            regression_runs.run(str(row.pk))
    row.refresh_from_db()
    assert jobs.is_outage(raised.value)
    assert (row.status, row.progress_done, Verdict.objects.count()) == ("running", 1, 1)

    run_jobs()

    row.refresh_from_db()
    assert (row.status, row.computed, row.reused) == ("differs", 2, 0)


def test_fixture_whose_capture_is_no_longer_stored_is_not_tested(world: World) -> None:
    now = configured(world)
    lost, _ = keep(world, now, cards(1), cards(2))
    blobs.delete(lost.artifact.content_hash)
    row = requested(world, changed(world, now), now)

    run_jobs()

    row.refresh_from_db()
    assert (row.status, row.progress_done) == ("differs", 2)
    assert outcomes(row) == [("not_tested", "The content is no longer stored."), ("different", None)]
    assert Verdict.objects.count() == 1


def test_fixtures_and_baselines_that_change_or_disappear_are_not_tested(world: World) -> None:
    now = configured(world)
    other = configured(world, "other", now.version, check=CHECK, redact={"rules": []})
    candidate = changed(world, now)
    side = {"result": {"egress": {}, "stop": None, "actions": ""}, "spec_kv": now.version.spec_kv, "stage_config": {}}
    golden = {"golden_replay_id": world.organization.pk, "golden": side}
    deleted, expired, kept = keep(world, now, cards(1), cards(2), cards(3))
    (no_longer_golden,) = keep(world, now, cards(4), **golden)
    (golden_since,) = keep(world, now, cards(5))
    row = requested(world, candidate, now, other)
    regression_runs._start(row, Claim())
    deleted.delete()
    Fixture.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    Fixture.objects.filter(pk=no_longer_golden.pk).update(golden=None, golden_replay_id=None)
    Fixture.objects.filter(pk=golden_since.pk).update(**golden)
    other.delete()

    run_jobs()

    row.refresh_from_db()
    gone = ("not_tested", "The fixture was deleted or expired before it was tested.")
    no_baseline = ("not_tested", "The baseline was deleted before the fixture was tested.")
    changed_since = ("not_tested", "The fixture's expectation was changed before it was tested.")
    assert outcomes(row) == [
        gone, gone, gone, gone, ("different", None), no_baseline, changed_since, changed_since, changed_since
    ]  # fmt: skip
    assert (row.status, row.computed, row.progress_done, row.progress_total) == ("differs", 1, 9, 9)
    assert row.groups[0]["fixtures"] == [{"id": str(kept.pk), "name": kept.name}]


def test_golden_fixture_adds_no_work_and_fixtures_with_equal_records_share_verdict(world: World) -> None:
    now = configured(world)
    keep(world, now, cards(1), cards(1))
    result = Result({"quotes_out": {"records": 1, "sha256": "sha256:0"}}, None, "").as_json()
    side = {"result": result, "spec_kv": now.version.spec_kv, "stage_config": now.stage_config}
    keep(world, now, cards(1), golden_replay_id=world.organization.pk, golden=side)
    row = requested(
        world, configured(world, "next", now.version, check=CHECK, redact={"rules": [*MASK["rules"], "no:drop"]}), now
    )

    run_jobs()

    row.refresh_from_db()
    assert (row.status, row.computed, row.reused, row.progress_done) == ("differs", 2, 1, 3)
    assert row.work_candidate == row.work_baseline > 0
    same, golden = Verdict.objects.order_by("more")
    assert (same.more, golden.more, golden.outcome) == (0, 1, "different")
    assert row.work_candidate == 2 * same.work_candidate


# -- jobs that kill their worker


def test_regressions_of_spec_that_killed_workers_fail_and_new_requests_are_refused(world: World) -> None:
    now = configured(world)
    keep(world, now, cards(1))
    candidate = changed(world, now)
    killing, waiting = requested(world, candidate, now), requested(world, candidate, now)
    elsewhere = requested(world, configured(world, "else", world.version(), check=CHECK), now)
    ProcrastinateJob.objects.filter(args__regression_id=str(killing.pk)).update(status="doing")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_jobs SET byteor_kills = %s WHERE status = 'doing'", [jobs.KILLS - 1])

    assert take_over_job()

    for row in (killing, waiting):
        row.refresh_from_db()
        assert (row.status, row.error) == ("failed", f"The process that ran the job was killed {jobs.KILLS} times.")
        assert row.summary.startswith(f"### `{candidate}`: the test failed\n\n`The process that ran the job was killed")
    with pytest.raises(Conflict) as refused:
        requested(world, candidate, now)
    assert refused.value.reason == "regression.barred"
    assert Regression.objects.count() == 3
    elsewhere.refresh_from_db()
    assert elsewhere.status == "queued"
