"""The random actions of the worker and the clock: run jobs, crash, fail, and let time pass."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import strategies as st
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.jobs import AgentLeft, WelcomeAgent
from apps.releases.jobs import BuildBundle, StepRollout, UndoBreakGlass
from apps.releases.models import Deployment
from apps.releases.tasks import sum_progress, sweep
from apps.tenancy.services import ledger
from apps.tenancy.services.ledger import Verification
from byteor_cloud.storage import blobs
from byteor_cloud.worker.jobs import KINDS, GivenUp
from tests.releases import model_records as m
from tests.releases.random_fleet import Fleet
from tests.releases.random_story import any_index, random_action
from tests.releases.stage import Crash, StoryClock, crash_before
from tests.worlds import run_job

# The number of the SQL statement before which the worker crashes, or None. A step has about 15 statements, and a build
# about 60.
crashes = st.none() | st.integers(3, 16) | st.integers(0, 60)


class Worker(Fleet):
    """The worker and the clock of a random story."""

    def _take(self, which: int) -> ProcrastinateJob:
        job = self.queue[which % len(self.queue)]
        # While the job runs, the same job can be enqueued again.
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="doing")
        return job

    @staticmethod
    def _requeue(job: ProcrastinateJob) -> None:
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="todo", queueing_lock=None)

    def _deployment(self, job: ProcrastinateJob) -> m.Deployment:
        return self.model.deployments[self.ids.index(UUID(job.args["deployment_id"]))]

    def _done(self, job: ProcrastinateJob) -> None:
        """Run the job in the model as well."""
        steps: dict[str, Callable[[m.Deployment], None]] = {
            BuildBundle.name: self.model.build,
            StepRollout.name: self.model.step,
            UndoBreakGlass.name: self.model.roll_back_break_glass,
        }
        if step := steps.get(job.task_name):
            step(self._deployment(job))
        elif job.task_name == WelcomeAgent.name:
            ids = [str(agent.pk) for agent, _ in self.agents]
            self.model.offer_to_late_joiner(self.model.agents[ids.index(job.args["agent_id"])])
        else:
            assert job.task_name == AgentLeft.name

    @random_action(3, when=lambda self: self.queue, which=any_index, again=st.sampled_from([False, False, False, True]))
    def work(self, which: int, again: bool) -> None:
        """Run one job. With ``again``, the worker crashes before it marks the job as done, so the job runs again."""
        job = self._take(which)
        run_job(job)
        self._done(job)
        if again:
            self._requeue(job)
        else:
            ProcrastinateJob.objects.filter(pk=job.pk).delete()

    @random_action(2, when=lambda self: self.queue, which=any_index, crash_at=crashes)
    def work_off(self, which: int, crash_at: int | None) -> None:
        """Run all jobs until none is left. With ``crash_at``, a run that may crash precedes each run."""
        for turn in range(200):
            self.queue = self._waiting()
            if not self.queue:
                return
            if crash_at is not None:
                self.crash(which, (crash_at + turn) % 61)
                self.check()
            self.work(which, again=False)
        raise AssertionError("a job keeps enqueuing itself")

    @random_action(3, when=lambda self: self.queue, which=any_index, statement=st.integers(0, 60))
    def crash(self, which: int, statement: int) -> None:
        job = self._take(which)
        try:
            with crash_before(statement):
                run_job(job)
        except Crash:
            if job.task_name == BuildBundle.name:
                # The first transaction of the build may have been committed.
                deployment = self._deployment(job)
                if Deployment.objects.get(pk=job.args["deployment_id"]).status != deployment.status:
                    self.model.begin_build(deployment)
        else:
            self._done(job)
        self._requeue(job)

    @random_action(
        1, when=lambda self: any(job.task_name == BuildBundle.name for job in self.queue),
        which=any_index, last=st.booleans(),
    )  # fmt: skip
    def storage_fails(self, which: int, last: bool) -> None:
        self.queue = [job for job in self.queue if job.task_name == BuildBundle.name]
        job = self._take(which)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(blobs, "put", _no_storage)
            try:
                run_job(job)
            except OSError:
                if last:
                    gave_up = KINDS[BuildBundle.name].gave_up
                    assert gave_up is not None
                    gave_up(GivenUp(killed=False, error="no space left on device"), **job.args)
                (self.model.fail_build if last else self.model.begin_build)(self._deployment(job))
            else:  # nothing was stored: the build did not start, or failed before
                self.model.begin_build(self._deployment(job))
        self._requeue(job)

    def _sweep(self) -> None:
        sweep()
        sum_progress()
        self.model.sweep()

    @random_action(
        2,
        seconds=st.sampled_from([30, 60, 60, 300, 600, 600, 3600]), swept=st.sampled_from([True, True, True, False]),
    )  # fmt: skip
    def wait(self, seconds: int, swept: bool) -> None:
        self.model.now += seconds
        StoryClock.at += timedelta(seconds=seconds)
        if swept:
            self._sweep()

    def _seal(self) -> None:
        ledger.seal_all()
        verification = Verification(self.scene.world.organization.pk)
        assert (list(verification.faults()), verification.unsealed) == ([], 0)


def _no_storage(*_: object) -> None:
    raise OSError("no space left on device")
