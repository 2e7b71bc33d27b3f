"""Random stories of callers, agents, a worker that crashes and a clock that jumps, held against ``model``.

BYTEOR_TEST_SEED=… chooses other stories, and BYTEOR_TEST_EXAMPLES=… how many.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, cast
from uuid import UUID

import hypothesis
import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent, Heartbeat
from apps.releases.models import Approval, Deployment, TimelineEntry
from apps.releases.tasks import sweep
from apps.tenancy import audit
from apps.tenancy.api import limits
from apps.tenancy.ledger import Verification
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud import blobs, ids
from byteor_cloud.engine.machines import DEPLOYMENT, DeploymentEvent
from byteor_cloud.jobs import KINDS, GivenUp
from tests.conftest import SEED
from tests.releases import model as m
from tests.releases.stage import Clock, Crash, Scene, crash_before, rows_of, rows_of_model
from tests.worlds import Api, run_job

EXAMPLES = int(os.environ.get("BYTEOR_TEST_EXAMPLES", "14"))
STEPS = 40

people = st.sampled_from(["operator", "reviewer", "admin"])
some = st.integers(0, 20)  # one of however many there are
# Before which statement of a job: a step takes some fifteen, a build some sixty.
crashes = st.none() | st.integers(3, 16) | st.integers(0, 60)
targets = st.one_of(
    st.just(m.Target()),
    st.sampled_from("ab").map(lambda site: m.Target(site=site)),
    st.sets(st.integers(0, 3), min_size=1, max_size=3).map(lambda ns: m.Target(agents=tuple(sorted(ns)))),
)
strategies = st.one_of(
    st.builds(m.Strategy, threshold=st.sampled_from([0, 50]), auto_rollback=st.booleans()),
    st.builds(
        m.Strategy,
        percents=st.sampled_from([(50, 100), (25, 50, 100)]),
        pause_s=st.sampled_from([0, 0, 60]),
        threshold=st.sampled_from([0, 50]),
        auto_rollback=st.booleans(),
    ),
)

# Where a command makes sense; now and then it is tried elsewhere.
MOSTLY = {
    "rollback": {"active", "failed", "deploying"},
    "retry": {"failed", "deploying"},
    "abort": {"pending_approval", "approved", "building", "deploying"},
    "pause": {"deploying"},
    "resume": {"deploying"},
    "revoke": {"pending_approval", "approved"},
}

type When = Callable[[Stories], object]
CHANCES: list[tuple[str, int, When, dict[str, Any]]] = []


def chance[F: Callable[..., None]](weight: int, *, when: When = bool, **arguments: Any) -> Callable[[F], F]:
    """Something that may happen, so often, ``when`` it makes sense."""

    def declare(function: F) -> F:
        CHANCES.append((function.__name__, weight, when, arguments))
        return function

    return declare


class Stories(RuleBasedStateMachine):
    """One environment in one story; what the story wrote is rolled back at its end."""

    scene: ClassVar[Scene]

    def __init__(self) -> None:
        super().__init__()
        limits._local.clear()
        Clock.at, ids._last = self.scene.start, 0
        self.story = transaction.atomic()
        self.story.__enter__()
        self.model = m.Model(m.Policy())
        self.ids: list[UUID] = []  # of the deployments, by number
        self.agents: list[tuple[Agent, Api]] = []
        self.seen: list[tuple[int, int, int]] = []  # every offer that there ever was: the agent, by, the source
        self.told = Counter[UUID]()
        self.statuses: dict[int, str] = {}
        self.used: set[int] = set()
        self.audited = 0
        self.queue: list[ProcrastinateJob] = []

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.settle()
        finally:
            transaction.set_rollback(True)
            self.story.__exit__(None, None, None)

    @initialize(
        approvals=st.sampled_from([0, 0, 1, 2]), self_approval=st.booleans(), in_flight=st.sampled_from([1, 2, 3]),
        before=st.sampled_from([2, 2, 1, 0]),
    )  # fmt: skip
    def begin(self, approvals: int, self_approval: bool, in_flight: int, before: int) -> None:
        """``before``: how many releases went well."""
        self.model = m.Model(m.Policy(approvals, self_approval, in_flight))
        self._set(
            approvals_required=approvals > 0, required_approvals=max(1, approvals), allow_self_approval=self_approval,
            max_in_flight_deployments=in_flight,
        )  # fmt: skip
        for site, agent, api in self.scene.agents:
            self.agents.append((agent, api))
            self.model.enroll(site)
        for _ in range(before):
            self.release(0, m.Target(), m.Strategy(), "end")

    @rule(data=st.data())
    def next(self, data: Any) -> None:
        """One rule for all: with a rule each, Hypothesis would leave most of them out of any one story."""
        possible = [chance for chance in CHANCES if chance[2](self) for _ in range(chance[1])]
        name, _, _, arguments = possible[data.draw(st.integers(0, len(possible) - 1))]
        getattr(self, name)(**data.draw(st.fixed_dictionaries(arguments), label=name))

    def _set(self, **changed: Any) -> None:
        settings = Environment.objects.get(pk=self.scene.here.pk).settings
        Environment.objects.filter(pk=self.scene.here.pk).update(settings={**settings, **changed})

    # Callers.

    @staticmethod
    def _answered(answer: Any, refusals: set[str] | str | None, expected: int = 200) -> None:
        """As the model says: with ``expected``, or refused with one of these codes."""
        if not refusals:
            assert answer.status_code == expected, answer.json()
            return
        problem = answer.json()
        code = problem.get("type", "not refused").removeprefix("urn:byteor:problem:")
        assert code in ({refusals} if isinstance(refusals, str) else refusals), (problem, refusals)
        assert answer.status_code == problem["status"]

    def _post(self, rest: str, body: Any = None, *, by: str = "operator") -> Any:
        return self.scene.people[by].api.post(self.scene.path(rest), body)

    def _create(self, number: int, target: m.Target, strategy: m.Strategy, by: str, **extra: Any) -> None:
        bundle, made = self.scene.bundles[number % len(self.scene.bundles)]
        named: dict[str, Any] = {"all": True}
        if target.agents:
            named = {"agents": [str(self.agents[n][0].pk) for n in target.agents]}
        elif target.site:
            named = {"selector": {"site": target.site}}
        waves = {"percents": strategy.percents, "pause_s": strategy.pause_s} if len(strategy.percents) > 1 else {}
        body: dict[str, Any] = {
            "config_bundle_id": str(made.pk), "target": named, "take_over": extra.get("take_over", False),
            "strategy": {
                "kind": "waves" if waves else "all_at_once", **waves,
                "failure_threshold_percent": strategy.threshold, "auto_rollback": strategy.auto_rollback,
            },
        }  # fmt: skip
        if extra.get("override_freeze"):
            body["override_freeze"] = {"reason": "urgent"}
        if extra.get("break_glass_s"):
            body["break_glass"] = {"reason": "urgent", "expires_in_s": extra["break_glass_s"]}
        if source := extra.get("hand_in"):
            body["approval"] = Approval.objects.get(deployment=self.ids[source.number]).credential
        answer = self._post("/deployments", body, by=by)
        obstacles = self.model.obstacles(bundle, target, strategy, by=by, **extra)
        self._answered(answer, obstacles, 201)
        if not obstacles:
            self.ids.append(UUID(answer.json()["id"]))
            self.model.create(bundle, target, strategy, by=by, **extra)

    @chance(
        2,
        number=some, at=targets, strategy=strategies, take_over=st.booleans(),
        override_freeze=st.sampled_from([False, False, False, False, True]), by=people,
    )  # fmt: skip
    def create(self, number: int, at: m.Target, strategy: m.Strategy, by: str, **extra: bool) -> None:
        self._create(number, at, strategy, by, **extra)

    @chance(
        4,
        number=some, at=targets, strategy=strategies, crash_at=crashes,
        word=st.sampled_from(["end", "end", "failed", "activating", "", "abort"]),
    )  # fmt: skip
    def release(self, number: int, at: m.Target, strategy: m.Strategy, word: str, crash_at: int | None = None) -> None:
        """All that is needed to have it with the agents, and their word on it, if any; or it is aborted then."""
        # Another bundle than the last time, mostly of the first pipeline: else there is nothing to go back to.
        another = 3 + number % 2 if number > 16 else len(self.ids) % 2 if number < 12 else 2
        self._create(another, at, strategy, "operator", take_over=True)
        for deployment in self.model.deployments[-1:]:
            if deployment.status == "pending_approval":
                for person in ("reviewer", "admin")[: deployment.policy.approvals]:
                    self._decide(deployment, person, "approve")
            for _ in deployment.strategy.percents:
                self.work_off(0, crash_at)
                if word == "abort":
                    self._command(deployment, word, self.model.abort(deployment))
                    return
                self.report_all(word)
                self.work_off(0, crash_at)
                if deployment.status == "deploying" and deployment.wave_done is not None:
                    self.wait(60, swept=True)

    @chance(
        1, when=lambda self: self.model.policy.approvals,
        number=some, at=targets, strategy=strategies, seconds=st.sampled_from([600, 3600, 7200]),
    )  # fmt: skip
    def break_glass(self, number: int, at: m.Target, strategy: m.Strategy, seconds: int) -> None:
        by = "operator" if number % 8 == 0 else "admin"
        self._create(number, at, strategy, by, take_over=number % 2 == 0, break_glass_s=seconds)

    @chance(
        1, when=lambda self: any(d.approval and d.approval.was_given for d in self.model.deployments),
        which=some, strategy=strategies, same=st.sampled_from([True, True, True, False]),
    )  # fmt: skip
    def hand_in(self, which: int, strategy: m.Strategy, same: bool) -> None:
        """The credential of an approval that was given, for the same or for something else."""
        given = [d for d in self.model.deployments if d.approval and d.approval.was_given]
        source = given[which % len(given)]
        number = source.bundle.number if same else which
        strategy = source.strategy if same else strategy
        self._create(number, source.target, strategy, "operator", take_over=True, hand_in=source)

    def _pick(self, which: int, statuses: set[str]) -> m.Deployment:
        """One in these statuses, if there is one; every fourth time any."""
        fit = [d for d in self.model.deployments if d.status in statuses] if which % 4 else []
        return (found := fit or self.model.deployments)[-1 - which // 4 % len(found)]

    @chance(
        2, when=lambda self: self.model.policy.approvals and self.ids,
        which=some, person=people, word=st.sampled_from(["approve", "approve", "approve", "deny"]),
    )  # fmt: skip
    def decide(self, which: int, person: str, word: str) -> None:
        pending = [d for d in self.model.deployments if d.approval and d.approval.status == "pending"]
        found = pending or self.model.deployments
        self._decide(found[-1 - which % len(found)], person, word)

    def _decide(self, deployment: m.Deployment, person: str, word: str) -> None:
        body = {"deployment_id": str(self.ids[deployment.number]), "decision": word, "comment": "seen"}
        answer = self._post("/approvals", body, by=person)
        self._answered(answer, self.model.decide(deployment, person, word), 201)

    @chance(
        8, when=lambda self: self.ids, which=some, action=st.sampled_from(["rollback", "rollback", "retry", *MOSTLY])
    )
    def command(self, which: int, action: str) -> None:
        deployment = self._pick(which, MOSTLY[action])
        model = self.model
        if action == "rollback":
            self._command(deployment, action, model.rollback(deployment))
            if deployment.status == "rolling_back" and which % 2:
                self.report_all("end")
                self.work_off(which, None)
        elif action == "abort":
            self._command(deployment, action, model.abort(deployment))
        elif action == "retry":
            if deployment.bundle.number in model.bad and which % 2:
                self.clear(sorted(model.bad).index(deployment.bundle.number))
            self._command(deployment, action, model.retry(deployment))
        elif action in {"pause", "resume"}:
            self._command(deployment, action, model.pause(deployment, paused=action == "pause"))
        elif deployment.approval is not None:
            pk = Approval.objects.get(deployment=self.ids[deployment.number]).pk
            self._answered(self._post(f"/approvals/{pk}/revoke"), model.revoke(deployment))

    def _command(self, deployment: m.Deployment, action: str, refusals: set[str] | str | None) -> None:
        path = f"/deployments/{self.ids[deployment.number]}/{action}"
        self._answered(self._post(path, {"reason": "because"}), refusals)

    @chance(1, when=lambda self: self.model.bad, which=some)
    def clear(self, which: int) -> None:
        bad = sorted(self.model.bad)
        bundle, made = self.scene.bundles[bad[which % len(bad)]]
        answer = self._post(f"/config-bundles/{made.pk}/clear", {"reason": "mended"})
        self._answered(answer, self.model.clear(bundle))

    def _freeze(self, frozen: bool) -> None:
        start, end = ((self.scene.start + timedelta(days=days)).isoformat() for days in (-1, 90))
        window = {"start": start, "end": end, "time_zone": "UTC", "reason": "year end"}
        self._set(freeze_windows=[window] if frozen else [])
        self.model.frozen = frozen

    # Agents.

    @chance(2, what=st.sampled_from(["enroll", "enroll", "relabel", "relabel", "leave", "beat", "beat"]), number=some)
    def change_of_fleet(self, what: str, number: int) -> None:
        site = "ab"[number % 2]
        if what == "enroll":
            if len(self.agents) < 6:
                self._enroll(site)
        elif what == "relabel":
            self._relabel(number, site)
        else:
            (self._leave if what == "leave" else self._beat)(number)

    def _enroll(self, site: str) -> None:
        token = self.scene.world.enrollment_token(self.scene.here)
        body = {"name": f"agent {len(self.agents)}", "labels": {"site": site}}
        answer = Api(token).post(self.scene.path("/agents"), body)
        assert answer.status_code == 201, answer.json()
        enrolled = answer.json()
        self.agents.append((Agent.objects.get(pk=enrolled["agent_id"]), Api(enrolled["api_key"])))
        self.model.enroll(site)

    def _agent(self, number: int) -> tuple[m.Agent, Agent, Api]:
        number %= len(self.agents)
        return (self.model.agents[number], *self.agents[number])

    def _leave(self, number: int) -> None:
        known, agent, _ = self._agent(number)
        answer = self.scene.world.operator.api.delete(self.scene.path(f"/agents/{agent.pk}"))
        assert answer.status_code == (404 if known.left else 204)
        known.left = True

    def _relabel(self, number: int, site: str) -> None:
        known, agent, _ = self._agent(number)
        path = self.scene.path(f"/agents/{agent.pk}")
        answer = self.scene.world.operator.api.patch(path, {"labels": {"site": site}})
        assert answer.status_code == (404 if known.left else 200)
        known.site = known.site if known.left else site

    def _beat(self, number: int) -> None:
        known, agent, api = self._agent(number)
        answer = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})
        if known.left:
            assert answer.status_code == 401
            return
        # PostgreSQL has a clock of its own, which nobody moved.
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now())
        known.heard = self.model.now
        desired = answer.json()["desired"]
        if known.offer is None:
            assert desired is None
        else:
            assert (desired["deployment_id"], desired["action"], desired["bundle_hash"]) == (
                str(self.ids[known.offer.by]), known.offer.action, self._hash(known.offer.source),
            )  # fmt: skip

    def _hash(self, number: int) -> str | None:
        return Deployment.objects.get(pk=self.ids[number]).bundle_hash

    def _say(self, agent: Agent, api: Api, by: int, source: int, status: str) -> Any:
        body = {"deployment_id": str(self.ids[by]), "status": status, "bundle_hash": self._hash(source)}
        return api.post(f"/api/v1/agents/{agent.pk}/deployment", body)

    def _report(self, number: int, by: int, source: int, status: str) -> None:
        known, agent, api = self._agent(number)
        answer = self._say(agent, api, by, source, status)
        if known.left:
            assert answer.status_code == 401
        else:
            self._answered(answer, None if self.model.report(known, by, source, status) else "late_report")

    @chance(
        3, when=lambda self: self.seen,
        which=some, status=st.sampled_from(["downloading", "activating", "failed", "end", "end"]),
    )  # fmt: skip
    def report(self, which: int, status: str) -> None:
        """About what is desired."""
        open_ones = [a for a in self.model.agents if a.offer and a.progress not in m.ENDS]
        if open_ones:
            self._report_on_offer(open_ones[which % len(open_ones)], status)

    def _report_on_offer(self, agent: m.Agent, status: str) -> None:
        if agent.offer is not None:
            end = "rolled_back" if agent.offer.action == "rollback" else "active"
            self._report(agent.number, agent.offer.by, agent.offer.source, end if status == "end" else status)

    @chance(2, when=lambda self: self.seen, word=st.sampled_from(["end", "end", "activating", "failed"]))
    def report_all(self, word: str) -> None:
        for agent in self.model.agents:
            if word and agent.progress not in m.ENDS:
                self._report_on_offer(agent, word)

    @chance(
        2, when=lambda self: self.seen,
        which=some, status=st.sampled_from(["downloading", "activating", "failed", "active", "rolled_back"]),
    )  # fmt: skip
    def report_late(self, which: int, status: str) -> None:
        """About any offer that the agent ever had, in any order, again and again."""
        self._report(*self.seen[which % len(self.seen)], status)

        if which % 8 == 0:
            self._report_strangely(which)

    def _report_strangely(self, which: int) -> None:
        """An agent of another environment speaks of an offer here."""
        _, by, source = self.seen[which % len(self.seen)]
        self._answered(self._say(*self.scene.stranger, by, source, "active"), "not_found")

    # The worker.

    def _waiting(self) -> list[ProcrastinateJob]:
        """The jobs that may be next: of those that must go one after the other, the first."""
        found: dict[str, ProcrastinateJob] = {}
        for job in ProcrastinateJob.objects.filter(status="todo").order_by("id"):
            found.setdefault(job.lock or f"job {job.pk}", job)
        return list(found.values())

    def _take(self, which: int) -> ProcrastinateJob:
        job = self.queue[which % len(self.queue)]
        # While it runs, the same may be enqueued again.
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="doing")
        return job

    @staticmethod
    def _give_back(job: ProcrastinateJob) -> None:
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="todo", queueing_lock=None)

    def _deployment(self, job: ProcrastinateJob) -> m.Deployment:
        return self.model.deployments[self.ids.index(UUID(job.args["deployment_id"]))]

    def _done(self, job: ProcrastinateJob) -> None:
        """The model does the same."""
        steps: dict[str, Callable[[m.Deployment], None]] = {
            "releases.build": self.model.build,
            "releases.step": self.model.step,
            "releases.undo_break_glass": self.model.undo_break_glass,
        }
        if step := steps.get(job.task_name):
            step(self._deployment(job))
        elif job.task_name == "releases.welcome":
            ids = [str(agent.pk) for agent, _ in self.agents]
            self.model.welcome(self.model.agents[ids.index(job.args["agent_id"])])
        else:
            assert job.task_name == "releases.agent_left"

    @chance(3, when=lambda self: self.queue, which=some, again=st.sampled_from([False, False, False, True]))
    def work(self, which: int, again: bool) -> None:
        """``again``: the worker ends after the job and before it has said so."""
        job = self._take(which)
        run_job(job)
        self._done(job)
        if again:
            self._give_back(job)
        else:
            ProcrastinateJob.objects.filter(pk=job.pk).delete()

    @chance(2, when=lambda self: self.queue, which=some, crash_at=crashes)
    def work_off(self, which: int, crash_at: int | None) -> None:
        """All that waits; with ``crash_at``, each job begins once more after a crash there or a little later."""
        for turn in range(200):
            self.queue = self._waiting()
            if not self.queue:
                return
            if crash_at is not None:
                self.crash(which, (crash_at + turn) % 61)
                self.holds()
            self.work(which, again=False)
        raise AssertionError("something enqueues itself")

    @chance(3, when=lambda self: self.queue, which=some, statement=st.integers(0, 60))
    def crash(self, which: int, statement: int) -> None:
        job = self._take(which)
        try:
            with crash_before(statement):
                run_job(job)
        except Crash:
            if job.task_name == "releases.build":
                # Its first half may stand.
                deployment = self._deployment(job)
                if Deployment.objects.get(pk=job.args["deployment_id"]).status != deployment.status:
                    self.model.begin_build(deployment)
        else:
            self._done(job)
        self._give_back(job)

    @chance(
        1, when=lambda self: any(job.task_name == "releases.build" for job in self.queue),
        which=some, last=st.booleans(),
    )  # fmt: skip
    def storage_fails(self, which: int, last: bool) -> None:
        self.queue = [job for job in self.queue if job.task_name == "releases.build"]
        job = self._take(which)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(blobs, "put", _no_storage)
            try:
                run_job(job)
            except OSError:
                if last:
                    gave_up = KINDS["releases.build"].gave_up
                    assert gave_up is not None
                    gave_up(GivenUp(killed=False, error="no space left on device"), **job.args)
                (self.model.give_up_building if last else self.model.begin_build)(self._deployment(job))
            else:  # it was not its turn
                self.model.begin_build(self._deployment(job))
        self._give_back(job)

    def _sweep(self) -> None:
        sweep()
        self.model.sweep()

    @chance(
        2,
        seconds=st.sampled_from([30, 60, 60, 300, 600, 600, 3600]), swept=st.sampled_from([True, True, True, False]),
    )  # fmt: skip
    def wait(self, seconds: int, swept: bool) -> None:
        self.model.now += seconds
        Clock.at += timedelta(seconds=seconds)
        if swept:
            self._sweep()

    @chance(1, what=st.sampled_from(["freeze", "thaw", "thaw", "seal", "sweep"]))
    def now_and_then(self, what: str) -> None:
        if what in {"freeze", "thaw"}:
            self._freeze(what == "freeze")
        else:
            (self._seal if what == "seal" else self._sweep)()

    def _seal(self) -> None:
        audit.seal_all()
        ledger = Verification(self.scene.world.organization.pk)
        assert (list(ledger.faults()), ledger.unsealed) == ([], 0)

    # What holds at all times.

    @invariant()
    def holds(self) -> None:
        rows = rows_of(self.scene, self.ids, [agent.pk for agent, _ in self.agents]) if self.agents else {}
        if rows:
            self._steps_are_of_the_table(rows["deployments"], rows["approvals"])
            self._nothing_is_impossible(rows)
            assert rows == rows_of_model(self.model)
        self.queue = self._waiting()

    def _steps_are_of_the_table(self, deployments: dict[int, Any], approvals: dict[int, Any]) -> None:
        """What the timeline says since the last look leads from the status then to the status now."""
        entries = TimelineEntry.objects.filter(deployment__environment=self.scene.here).order_by("id")
        events: dict[UUID, list[str]] = {pk: [] for pk in self.ids}
        for pk, event in entries.values_list("deployment_id", "event"):
            events[pk].append(event)
        for number, (status, *_) in deployments.items():
            pk = self.ids[number]
            at = self.statuses.get(number)
            for event in events[pk][self.told[pk] :]:
                if event == "create":
                    assert at is None
                    waits = number in approvals and not approvals[number][1]
                    at = "pending_approval" if waits else "approved"
                elif event not in {"pause", "resume"} and not event.startswith("break_glass_"):
                    assert at is not None
                    at = DEPLOYMENT.target(at, DeploymentEvent(event))
            assert status == at, (number, self.statuses.get(number), events[pk][self.told[pk] :], status)
            self.told[pk] = len(events[pk])
            self.statuses[number] = status

    def _nothing_is_impossible(self, rows: dict[str, Any]) -> None:
        """What must never be seen, whatever the model says."""
        deployments = rows["deployments"]
        current = [n for n, row in deployments.items() if row[2]]
        assert all(deployments[n][0] in {"active", "rolling_back"} for n in current)
        pipelines = [self.model.deployments[n].bundle.pipeline for n in current]
        assert len(pipelines) == len(set(pipelines))
        # A rollback waits for nobody.
        under_way = sum(row[0] in {"building", "deploying"} for row in deployments.values())
        assert under_way <= self.model.policy.in_flight
        for number, (by, source, action, progress) in rows["offers"].items():
            if by is None:
                assert (source, action) == (None, None)
                continue
            if (number, by, source) not in self.seen:
                self.seen.append((number, by, source))
            assert (action == "activate") is (by == source)
            assert rows["parts"][by, number][3] == progress, (number, by)
        for (n, _), (wave, _, action, progress, _) in rows["parts"].items():
            assert wave <= deployments[n][5] or (action, progress) == ("activate", "pending")
        used = {n for n, (_, _, used, _) in rows["approvals"].items() if used}
        assert used >= self.used
        self.used = used
        audited = AuditEvent.objects.count()
        assert audited >= self.audited
        self.audited = audited

    # Where it all ends.

    def settle(self) -> None:
        """Everybody does what is asked of them, until nothing is left to do: then nothing is left half done."""
        self._freeze(False)
        for _ in range(20):
            self._calm()
            unfinished = [d for d in self.model.deployments if d.status in {*m.IN_FLIGHT, "pending_approval"}]
            if not unfinished and not self.queue:
                break
            self.wait(600, swept=True)
        else:
            raise AssertionError("it never ends")
        for number in range(len(self.agents)):
            self._beat(number)
        self._seal()

    def _calm(self) -> None:
        for deployment in self.model.deployments:
            if deployment.paused and deployment.status == "deploying":
                self._command(deployment, "resume", self.model.pause(deployment, paused=False))
        self.holds()
        while True:
            open_ones = [a for a in self.model.agents if a.offer and not a.left and a.progress not in m.ENDS]
            if not open_ones and not self.queue:
                return
            for agent in open_ones:
                self._report_on_offer(agent, "end")
            self.work_off(0, None)
            self.holds()


def _no_storage(*_: object) -> None:
    raise OSError("no space left on device")


@pytest.mark.django_db
def test_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"BYTEOR_TEST_SEED={SEED}")
    Stories.scene = Scene()
    monkeypatch.setattr(timezone, "datetime", Clock)
    monkeypatch.setattr(ids, "time", Clock)
    monkeypatch.setattr(ids, "_last", 0)
    run_state_machine_as_test(
        cast(Any, hypothesis.seed(SEED))(Stories),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
