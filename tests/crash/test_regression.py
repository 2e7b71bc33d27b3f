"""Tests that a regression and its verdicts are computed once if the worker is killed or stops, or a child is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from apps.artifacts.models import Verdict
from apps.artifacts.services import children
from byteor_cloud.worker.process import Worker
from tests.artifacts.kept import CHECK, OTHER_MASK, cards, configured, events, keep, outcomes, requested
from tests.crash.conftest import lives
from tests.crash.test_replay import STOPPABLE, stop_next_replay, worker_environment
from tests.patience import PATIENCE_S, wait_until
from tests.races import concurrently
from tests.worlds import World

__all__ = ["concurrently"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("concurrently"),
]

ONE_FIXTURE_IN_EACH_PROCESS = STOPPABLE.replace(
    "worker = Worker(",
    "from apps.artifacts.services import fixture_batches\nfixture_batches._ITEMS = 1\nworker = Worker(",
)


@pytest.mark.parametrize("victim", ["worker", "worker that stops", "child"])
def test_regression_finishes_once_and_computes_each_verdict_once(victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("acme")
    now = configured(world)
    keep(world, now, *(cards(number) for number in range(4)))
    candidate = configured(world, "next", now.version, check=CHECK, redact=OTHER_MASK)
    row = requested(world, candidate, now)
    ran: list[int] = []
    run_in_child = children.run_in_child

    def count(request: Mapping[str, Any], **options: Any) -> Any:
        ran.append(len(request["items"]))
        return run_in_child(request, **options)

    def progress() -> int:
        row.refresh_from_db()
        return row.progress_done

    with subprocess.Popen([sys.executable, "-c", ONE_FIXTURE_IN_EACH_PROCESS], env=worker_environment()) as worker:
        try:
            child = stop_next_replay(worker.pid)
            wait_until(lambda: progress() == 3)  # other processes judged the other fixtures
            before = dict(Verdict.objects.values_list("key", "pk"))
            if victim == "child":
                os.kill(child, signal.SIGKILL)
                wait_until(lambda: progress() == 4 and row.status != "running")
            elif victim == "worker that stops":
                worker.terminate()
                assert worker.wait(PATIENCE_S) == 0
        finally:
            worker.kill()
            worker.wait()
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)  # it outlives the worker if it was stopped before its prctl call
    wait_until(lambda: not lives(child))
    if victim != "child":
        assert (progress(), row.status) == (3, "running")
        monkeypatch.setattr(children, "run_in_child", count)
        Worker(has_clock=False).run(until_idle=True)

    row.refresh_from_db()
    assert ran == ([] if victim == "child" else [1])
    assert (row.status, row.computed, row.reused, row.progress_done) == ("differs", 4, 0, 4)
    assert outcomes(row) == [("different", None)] * 4
    assert [each["count"] for each in row.groups] == [12]
    assert events(row) == ["request", "start", "differ"]
    after = dict(Verdict.objects.values_list("key", "pk"))
    assert len(after) == 4
    assert before.items() <= after.items()
