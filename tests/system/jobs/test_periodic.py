"""Periodic jobs: their intervals, one job per tick for all workers, and failures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.db import OperationalError

from byteor_cloud.worker import jobs
from byteor_cloud.worker.jobs import KINDS, Periodic
from byteor_cloud.worker.process import Worker
from tests.system.jobs.queue_steps import Fail, execute, fails_with, ran, waiting, work


def test_periodic_jobs_have_expected_intervals() -> None:
    assert {name: kind.periodic.every_s for name, kind in KINDS.items() if kind.periodic is not None} == {
        "notifications.delete_old": 3600,
        "notifications.sweep": 60,
        "notifications.wake": 3,
        "releases.renew_tests": 60,
        "releases.sum_progress": 5,
        "releases.sweep": 5,
        "tenancy.note_keys": 5,
        "tenancy.seal_audit": 3,
        "tenancy.wake_webhooks": 5,
        "tenancy.close_minute": 60,
        "tenancy.count_use": 60,
        "artifacts.check_what_runs": 60,
        "artifacts.expire_captures": 60,
        "artifacts.retention": 3600,
        "fleet.forget_credentials": 3600,
        "fleet.forget_history": 3600,
        "fleet.settle": 5,
        "fleet.write_series": 900,
        "releases.forget_particulars": 3600,
        "tenancy.forget_credentials": 3600,
        "tenancy.forget_deliveries": 3600,
        "tenancy.forget_hosts": 3600,
        "tenancy.forget_jobs": 3600,
        "tenancy.forget_sign_ins": 3600,
        "tenancy.seal_rest": 3600,
    }


def test_two_workers_enqueue_each_periodic_job_once_per_tick() -> None:
    two = [Worker() for _ in range(2)]
    for each in two:
        each._enqueue_ticks(1_000_000_000)
    assert len(waiting()) == len({name for name, _ in waiting()}) == sum(k.periodic is not None for k in KINDS.values())

    execute("DELETE FROM procrastinate_jobs")
    for each in two:
        each._enqueue_ticks(1_000_000_001)
    assert waiting() == []
    for each in two:
        each._enqueue_ticks(1_000_000_003)
    assert "tenancy.seal_audit" in dict(waiting())
    assert "tenancy.close_minute" not in dict(waiting())


@pytest.fixture
def every_3_s(monkeypatch: pytest.MonkeyPatch) -> Periodic:
    periodic = Periodic(Fail.name, every_s=3)
    monkeypatch.setitem(KINDS, Fail.name, replace(KINDS[Fail.name], periodic=periodic))
    return periodic


@pytest.mark.parametrize("error", [RuntimeError("no"), OperationalError("gone")], ids=repr)
def test_failing_periodic_job_leaves_at_most_one_dead_letter(every_3_s: Periodic, error: BaseException) -> None:
    fails_with.append(error)

    for tick in range(20):
        jobs.enqueue_tick(every_3_s, tick * 3)
        work()

    assert len(ran) == 20  # each tick runs once; no tick waits for the retry of another
    rows = [] if isinstance(error, OperationalError) else [("test.fail", "failed")]
    assert waiting() == rows
    ((defers, events),) = execute(
        "SELECT (SELECT count(*) FROM procrastinate_periodic_defers), (SELECT count(*) FROM procrastinate_events)"
    )
    assert (defers, events <= 4) == (1, True)

    fails_with.clear()
    jobs.enqueue_tick(every_3_s, 100)
    work()
    assert waiting() == []  # a success deletes the dead letter
