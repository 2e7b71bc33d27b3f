"""Random stories of callers, agents, a worker that crashes and a clock that jumps, held against ``model``.

BYTEOR_TEST_SEED=… chooses other stories, and BYTEOR_TEST_EXAMPLES=… how many.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any, ClassVar
from uuid import UUID

import hypothesis
import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent, Assignment, Heartbeat
from apps.releases.models import Approval, ConfigBundle, Deployment, DeploymentAgent, KnownBad, TimelineEntry
from apps.releases.tasks import sweep
from apps.tenancy import audit
from apps.tenancy.api import limits
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud import blobs
from byteor_cloud.engine.machines import DEPLOYMENT, DeploymentEvent
from tests.conftest import SEED
from tests.releases import model as m
from tests.worlds import Api, Person, World, plan, run_job

EXAMPLES = int(os.environ.get("BYTEOR_TEST_EXAMPLES", "40"))
STEPS = 50


class Crash(BaseException):
    """The worker's process ends here; what catches exceptions does not see it."""


@contextmanager
def crash_before(statement: int) -> Iterator[None]:
    """The process ends before the ``statement``-th statement from here on."""
    left = statement

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        # A transaction of the worker's is a savepoint here; to end before its release is to end after what it holds.
        if not sql.startswith(("RELEASE", "ROLLBACK")):
            left -= 1
            if left < 0:
                raise Crash
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield


class Clock(datetime):
    """Django's ``timezone.now``: stands still but for a microsecond a look, and is moved by hand."""

    at: ClassVar[datetime]

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # nobody asks a clock for itself
        cls.at += timedelta(microseconds=1)
        return cls.at


class Scene:
    """What all stories begin with, made once: the tenant, its bundles, its first agents. Each story is rolled back."""

    def __init__(self) -> None:
        self.world = World("acme")
        self.here, self.there = (self.world.environment("staging", name) for name in ("here", "there"))
        self.people: dict[str, Person] = {
            "operator": self.world.operator, "reviewer": self.world.reviewer, "admin": self.world.admin,
        }  # fmt: skip
        self.bundles: list[tuple[m.Bundle, ConfigBundle]] = []
        for pipeline in ("quotes", "trades"):
            version = self.world.version(self.here, plan(pipeline))
            for number in range(3):
                made = self.world.bundle(self.here, f"{pipeline} {number}", version=version, env={"N": str(number)})
                self.bundles.append((m.Bundle(len(self.bundles), pipeline), made))
        self.agents = [
            (site, *self.world.agent(self.here, f"agent {n}", site=site)) for n, site in enumerate("aabb")
        ]  # fmt: skip
        self.stranger = self.world.agent(self.there, "stranger")
        ProcrastinateJob.objects.all().delete()
        self.start = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
        Agent.objects.update(created_at=self.start)

    def path(self, rest: str) -> str:
        return self.world.path(self.here, rest)


targets = st.one_of(
    st.just(m.Target()),
    st.sampled_from("ab").map(lambda site: m.Target(site=site)),
    st.sets(st.integers(0, 5), min_size=1, max_size=3).map(lambda ns: m.Target(agents=tuple(sorted(ns)))),
)
strategies = st.builds(
    m.Strategy,
    percents=st.sampled_from([(100,), (50, 100), (25, 50, 100)]),
    pause_s=st.sampled_from([0, 60]),
    threshold=st.sampled_from([0, 50]),
    auto_rollback=st.booleans(),
)


class Stories(RuleBasedStateMachine):
    scene: ClassVar[Scene]

    deployments = Bundle("deployments")

    def __init__(self) -> None:
        super().__init__()
        limits._local.clear()
        Clock.at = self.scene.start
        self.story = transaction.atomic()
        self.story.__enter__()
        self.ids: list[UUID] = []  # of the deployments, by number
        self.agents: list[tuple[Agent, Api]] = []
        self.offers: list[tuple[int, int, int]] = []  # agent, by, source: each that was ever seen
        self.told = Counter[UUID]()
        self.statuses: dict[int, str] = {}
        self.audited = 0

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.settle()
        finally:
            transaction.set_rollback(True)
            self.story.__exit__(None, None, None)

    @initialize(
        approvals=st.sampled_from([0, 0, 1, 2]), self_approval=st.booleans(), in_flight=st.sampled_from([1, 2, 3])
    )
    def begin(self, approvals: int, self_approval: bool, in_flight: int) -> None:
        self.model = m.Model(m.Policy(approvals, self_approval, in_flight))
        self._set(
            approvals_required=approvals > 0, required_approvals=max(1, approvals), allow_self_approval=self_approval,
            max_in_flight_deployments=in_flight,
        )  # fmt: skip
        for site, agent, api in self.scene.agents:
            self.agents.append((agent, api))
            self.model.enroll(site)

    def _set(self, **changed: Any) -> None:
        settings = Environment.objects.get(pk=self.scene.here.pk).settings
        Environment.objects.filter(pk=self.scene.here.pk).update(settings={**settings, **changed})

    # Callers.

    def _refused(self, answer: Any, codes: set[str]) -> None:
        problem = answer.json()
        assert problem["type"].removeprefix("urn:byteor:problem:") in codes, (problem, codes)
        assert answer.status_code == problem["status"]

    def _asked(self, answer: Any, refusal: str | None, expected: int = 200) -> None:
        if refusal is None:
            assert answer.status_code == expected, answer.json()
        else:
            self._refused(answer, {refusal})

    @rule(
        target=deployments, number=st.integers(0, 5), target_=targets, strategy=strategies, take_over=st.booleans(),
        by=st.sampled_from(["operator", "admin"]),
    )  # fmt: skip
    def create(self, number: int, target_: m.Target, strategy: m.Strategy, take_over: bool, by: str) -> Any:
        bundle, made = self.scene.bundles[number]
        numbers = [n for n in target_.agents or () if n < len(self.agents)] or [0]
        target_ = m.Target(target_.site, tuple(numbers) if target_.agents else None)
        obstacles = self.model.obstacles(bundle, target_, take_over=take_over)
        body = {
            "config_bundle_id": str(made.pk),
            "target": {"agents": [str(self.agents[n][0].pk) for n in numbers]} if target_.agents
            else {"selector": {"site": target_.site}} if target_.site else {"all": True},
            "strategy": {"kind": "all_at_once"} if strategy.percents == (100,)
            else {"kind": "waves", "percents": strategy.percents, "pause_s": strategy.pause_s},
            "take_over": take_over,
        }  # fmt: skip
        body["strategy"] |= {  # type: ignore[operator]  # it is a dict
            "failure_threshold_percent": strategy.threshold, "auto_rollback": strategy.auto_rollback,
        }  # fmt: skip
        answer = self.scene.people[by].api.post(self.scene.path("/deployments"), body)
        if obstacles:
            self._refused(answer, obstacles)
            return multiple()
        assert answer.status_code == 201, answer.json()
        self.ids.append(UUID(answer.json()["id"]))
        if strategy.percents == (100,):
            strategy = m.Strategy(threshold=strategy.threshold, auto_rollback=strategy.auto_rollback)
        return self.model.create(bundle, target_, strategy, take_over=take_over, by=by)

    @rule(
        deployment=deployments, person=st.sampled_from(["operator", "reviewer", "admin"]),
        word=st.sampled_from(["approve", "approve", "approve", "deny"]),
    )  # fmt: skip
    def decide(self, deployment: m.Deployment, person: str, word: str) -> None:
        body = {"deployment_id": str(self.ids[deployment.number]), "decision": word, "comment": "seen"}
        answer = self.scene.people[person].api.post(self.scene.path("/approvals"), body)
        self._asked(answer, self.model.decide(deployment, person, word), 201)

    @precondition(lambda self: self.model.policy.approvals)
    @rule(deployment=deployments)
    def revoke(self, deployment: m.Deployment) -> None:
        approval = Deployment.objects.get(pk=self.ids[deployment.number]).approval_id
        answer = self.scene.world.reviewer.api.post(self.scene.path(f"/approvals/{approval}/revoke"))
        self._asked(answer, self.model.revoke(deployment))

    def _post(self, deployment: m.Deployment, action: str) -> Any:
        path = self.scene.path(f"/deployments/{self.ids[deployment.number]}/{action}")
        return self.scene.world.operator.api.post(path, {"reason": "because"})

    @rule(deployment=deployments, paused=st.booleans())
    def pause(self, deployment: m.Deployment, paused: bool) -> None:
        answer = self._post(deployment, "pause" if paused else "resume")
        self._asked(answer, self.model.pause(deployment, paused=paused))

    @rule(deployment=deployments)
    def abort(self, deployment: m.Deployment) -> None:
        self._asked(self._post(deployment, "abort"), self.model.abort(deployment))

    @rule(deployment=deployments)
    def roll_back(self, deployment: m.Deployment) -> None:
        self._asked(self._post(deployment, "rollback"), self.model.rollback(deployment))

    @rule(number=st.integers(0, 5))
    def clear(self, number: int) -> None:
        bundle, made = self.scene.bundles[number]
        path = self.scene.path(f"/config-bundles/{made.pk}/clear")
        answer = self.scene.world.operator.api.post(path, {"reason": "mended"})
        self._asked(answer, self.model.clear(bundle))

    @rule(frozen=st.booleans())
    def freeze(self, frozen: bool) -> None:
        start, end = ((self.scene.start + timedelta(days=days)).isoformat() for days in (-1, 30))
        window = {"start": start, "end": end, "time_zone": "UTC", "reason": "year end"}
        self._set(freeze_windows=[window] if frozen else [])
        self.model.frozen = frozen

    # Agents.

    @precondition(lambda self: len(self.agents) < 6)
    @rule(site=st.sampled_from("ab"))
    def enroll(self, site: str) -> None:
        token = self.scene.world.enrollment_token(self.scene.here)
        name = f"agent {len(self.agents)}"
        answer = Api(token).post(self.scene.path("/agents"), {"name": name, "labels": {"site": site}})
        assert answer.status_code == 201, answer.json()
        body = answer.json()
        self.agents.append((Agent.objects.get(pk=body["agent_id"]), Api(body["api_key"])))
        self.model.enroll(site)

    def _agent(self, number: int) -> tuple[m.Agent, Agent, Api]:
        number %= len(self.agents)
        return (self.model.agents[number], *self.agents[number])

    @rule(number=st.integers(0, 5))
    def leave(self, number: int) -> None:
        known, agent, _ = self._agent(number)
        answer = self.scene.world.operator.api.delete(self.scene.path(f"/agents/{agent.pk}"))
        assert answer.status_code == (404 if known.left else 204)
        known.left = True

    @rule(number=st.integers(0, 5), site=st.sampled_from("ab"))
    def relabel(self, number: int, site: str) -> None:
        known, agent, _ = self._agent(number)
        path = self.scene.path(f"/agents/{agent.pk}")
        answer = self.scene.world.operator.api.patch(path, {"labels": {"site": site}})
        assert answer.status_code == (404 if known.left else 200)
        if not known.left:
            known.site = site

    @rule(number=st.integers(0, 5))
    def beat(self, number: int) -> None:
        known, agent, api = self._agent(number)
        answer = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})
        if known.left:
            assert answer.status_code == 401
            return
        # PostgreSQL has a clock of its own, which nobody moved.
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now())
        known.heard = self.model.now
        desired, offer = answer.json()["desired"], known.offer
        if offer is None:
            assert desired is None
        else:
            hashes = [desired["bundle_hash"], Deployment.objects.get(pk=self.ids[offer.source]).bundle_hash]
            assert (desired["deployment_id"], desired["action"]) == (str(self.ids[offer.by]), offer.action)
            assert hashes[0] == hashes[1]

    def _report(self, number: int, by: int, source: int, status: str) -> None:
        known, agent, api = self._agent(number)
        body = {
            "deployment_id": str(self.ids[by]), "status": status,
            "bundle_hash": Deployment.objects.get(pk=self.ids[source]).bundle_hash,
        }  # fmt: skip
        answer = api.post(f"/api/v1/agents/{agent.pk}/deployment", body)
        if known.left:
            assert answer.status_code == 401
        else:
            taken = self.model.report(known, by, source, status)
            self._asked(answer, None if taken else "late_report")

    @rule(number=st.integers(0, 5), status=st.sampled_from(["downloading", "activating", "failed", "end", "end"]))
    def report(self, number: int, status: str) -> None:
        """About what is desired."""
        known, _, _ = self._agent(number)
        if known.offer is not None:
            end = "rolled_back" if known.offer.action == "rollback" else "active"
            self._report(number, known.offer.by, known.offer.source, end if status == "end" else status)

    @precondition(lambda self: self.offers)
    @rule(which=st.integers(0, 50), status=st.sampled_from(["downloading", "activating", "failed", "active", "rolled_back"]))
    def report_late(self, which: int, status: str) -> None:
        """About any offer that the agent ever had, in any order, again and again."""
        number, by, source = self.offers[which % len(self.offers)]
        self._report(number, by, source, status)

    @precondition(lambda self: self.offers)
    @rule(which=st.integers(0, 50))
    def report_strangely(self, which: int) -> None:
        """An agent of another environment speaks of an offer here."""
        _, by, source = self.offers[which % len(self.offers)]
        agent, api = self.scene.stranger
        body = {
            "deployment_id": str(self.ids[by]), "status": "active",
            "bundle_hash": Deployment.objects.get(pk=self.ids[source]).bundle_hash,
        }  # fmt: skip
        self._refused(api.post(f"/api/v1/agents/{agent.pk}/deployment", body), {"not_found"})

    @rule(word=st.sampled_from(["end", "end", "activating", "failed"]))
    def report_all(self, word: str) -> None:
        for number in range(len(self.agents)):
            self.report(number, word)

    # The worker.

    def _waiting(self) -> list[ProcrastinateJob]:
        """The jobs that may be next: of those that must go one after the other, the first."""
        found: dict[str, ProcrastinateJob] = {}
        for job in ProcrastinateJob.objects.filter(status="todo").order_by("id"):
            found.setdefault(job.lock or f"job {job.pk}", job)
        return list(found.values())

    def _of_model(self, job: ProcrastinateJob) -> None:
        if "deployment_id" in job.args:
            deployment = self.model.deployments[self.ids.index(UUID(job.args["deployment_id"]))]
            {"releases.build": self.model.build, "releases.step": self.model.step}[job.task_name](deployment)
        elif job.task_name == "releases.welcome":
            (known,) = (a for a in self.model.agents if str(self.agents[a.number][0].pk) == job.args["agent_id"])
            self.model.welcome(known)

    def _work(self, job: ProcrastinateJob) -> None:
        # While a job runs, the same may be enqueued again.
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="doing")
        run_job(job)
        ProcrastinateJob.objects.filter(pk=job.pk).delete()
        self._of_model(job)

    def _back(self, job: ProcrastinateJob) -> None:
        """Into the queue once more."""
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="todo", queueing_lock=None)

    @precondition(lambda self: self._waiting())
    @rule(which=st.integers(0, 10))
    def work(self, which: int) -> None:
        jobs = self._waiting()
        self._work(jobs[which % len(jobs)])

    @precondition(lambda self: self._waiting())
    @rule(which=st.integers(0, 10))
    def work_off(self, which: int) -> None:
        """All that waits, beginning anywhere."""
        for _ in range(100):
            jobs = self._waiting()
            if not jobs:
                return
            self._work(jobs[which % len(jobs)])
        raise AssertionError("something enqueues itself")

    @precondition(lambda self: self._waiting())
    @rule(which=st.integers(0, 10))
    def work_twice(self, which: int) -> None:
        """The worker ends after the job and before it has said so."""
        jobs = self._waiting()
        job = jobs[which % len(jobs)]
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="doing")
        run_job(job)
        self._of_model(job)
        self._back(job)

    @precondition(lambda self: self._waiting())
    @rule(which=st.integers(0, 10), statement=st.integers(0, 60))
    def crash(self, which: int, statement: int) -> None:
        jobs = self._waiting()
        job = jobs[which % len(jobs)]
        ProcrastinateJob.objects.filter(pk=job.pk).update(status="doing")
        try:
            with crash_before(statement):
                run_job(job)
        except Crash:
            if job.task_name == "releases.build":
                # Its first half may stand.
                deployment = self.model.deployments[self.ids.index(UUID(job.args["deployment_id"]))]
                if Deployment.objects.get(pk=job.args["deployment_id"]).status != deployment.status:
                    self.model.begin_build(deployment)
        else:
            self._of_model(job)
        self._back(job)

    @precondition(lambda self: any(job.task_name == "releases.build" for job in self._waiting()))
    @rule(which=st.integers(0, 10), last=st.booleans())
    def storage_fails(self, which: int, last: bool) -> None:
        jobs = [job for job in self._waiting() if job.task_name == "releases.build"]
        job = jobs[which % len(jobs)]
        job.attempts = 4 if last else 0
        deployment = self.model.deployments[self.ids.index(UUID(job.args["deployment_id"]))]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(blobs, "put", _no_storage)
            try:
                run_job(job)
            except OSError:
                (self.model.give_up_building if last else self.model.begin_build)(deployment)
            else:
                self.model.build(deployment)
        if last:
            ProcrastinateJob.objects.filter(pk=job.pk).delete()

    @rule()
    def sweep(self) -> None:
        sweep.func(0)
        self.model.sweep()

    @rule(seconds=st.sampled_from([30, 60, 300, 600, 3600]))
    def wait(self, seconds: int) -> None:
        self.model.now += seconds
        Clock.at += timedelta(seconds=seconds)

    @rule()
    def seal(self) -> None:
        audit.seal_all()
        assert list(audit.verify_chain(self.scene.world.organization.pk)) == []

    # What holds at all times.

    def _rows(self) -> dict[str, Any]:
        number = {pk: n for n, pk in enumerate(self.ids)}
        whose = {agent.pk: n for n, (agent, _) in enumerate(self.agents)}
        hashes = {made.config_hash: bundle.number for bundle, made in self.scene.bundles}

        def of(pk: UUID | None) -> int | None:
            return None if pk is None else number[pk]

        here = self.scene.here
        return {
            "deployments": {
                of(d.pk): (d.status, d.reason, d.is_current, of(d.superseded_by_id), of(d.restores_id), d.wave,
                           d.paused_at is not None, d.bundle_hash is not None)
                for d in Deployment.objects.filter(environment=here)
            },
            "approvals": {
                of(a.deployment.pk): (a.status, a.used_at is not None, a.decisions.filter(decision="approve").count())
                for a in Approval.objects.filter(environment=here).select_related("deployment")
            },
            "parts": {
                (of(p.deployment_id), whose[p.agent_id]): (p.wave, p.counted, p.action, p.progress, of(p.before_id))
                for p in DeploymentAgent.objects.filter(deployment__environment=here)
            },
            "offers": {
                whose[a.agent_id]: (of(a.deployment_id), of(a.bundle_deployment_id), a.action, a.progress)
                for a in Assignment.objects.filter(agent__environment=here)
            },
            "bad": {hashes[b.config_hash] for b in KnownBad.objects.filter(environment=here)},
        }  # fmt: skip

    def _model_rows(self) -> dict[str, Any]:
        model = self.model
        return {
            "deployments": {
                d.number: (d.status, d.reason, d.current, d.superseded_by, d.restores, d.wave, d.paused, d.built)
                for d in model.deployments
            },
            "approvals": {
                d.number: (d.approval.status, d.approval.used, len(d.approval.approved_by))
                for d in model.deployments if d.approval
            },
            "parts": {
                (d.number, n): (p.wave, p.counted, p.action, p.progress, p.before)
                for d in model.deployments for n, p in d.parts.items()
            },
            "offers": {
                a.number: (a.offer.by, a.offer.source, a.offer.action, a.progress) if a.offer
                else (None, None, None, a.progress)
                for a in model.agents
            },
            "bad": model.bad,
        }  # fmt: skip

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "model"):
            return
        rows = self._rows()
        self._legal(rows)
        assert rows == self._model_rows()

    def _legal(self, rows: dict[str, Any]) -> None:
        """Without the model: what must never be seen."""
        events: dict[UUID, list[str]] = {}
        entries = TimelineEntry.objects.filter(deployment__environment=self.scene.here).order_by("id")
        for pk, event in entries.values_list("deployment_id", "event"):
            events.setdefault(pk, []).append(event)
        for n, (status, _reason, current, *_) in rows["deployments"].items():
            told, self.told[self.ids[n]] = self.told[self.ids[n]], len(events[self.ids[n]])
            at = self.statuses.get(n)
            for event in events[self.ids[n]][told:]:
                if event == "create":
                    assert at is None
                    at = "pending_approval" if n in rows["approvals"] else "approved"
                elif event not in {"pause", "resume"}:
                    assert at is not None
                    target = DEPLOYMENT.target(at, DeploymentEvent(event))
                    assert target is not None, (n, at, event)
                    at = target
            assert status == at, (n, status, at)
            self.statuses[n] = status
            assert not current or status in {"active", "rolling_back"}
        current = Counter(
            self.model.deployments[n].bundle.pipeline for n, row in rows["deployments"].items() if row[2]
        )  # fmt: skip
        assert all(count == 1 for count in current.values())
        in_flight = [n for n, row in rows["deployments"].items() if row[0] in m.IN_FLIGHT]
        for number, (by, source, action, progress) in rows["offers"].items():
            if by is None:
                assert (source, action) == (None, None)
                continue
            assert (number, by, source) in self.offers or not self.offers.append((number, by, source))
            assert (action == "activate") is (by == source)
            assert rows["parts"][by, number][3] == progress, (number, by)
        for (n, _agent), (wave, _counted, _action, progress, _before) in rows["parts"].items():
            reached = wave <= rows["deployments"][n][5]
            assert reached or progress in {"pending"}
        audited = AuditEvent.objects.count()
        assert audited >= self.audited
        self.audited = audited

    # Where it all ends.

    @rule()
    def settle(self) -> None:
        """Everybody does what is asked of them, until nothing is left to do: then nothing is left half done."""
        if not hasattr(self, "model"):
            return
        for _ in range(60):
            before = self._rows()
            for deployment in self.model.deployments:
                if deployment.paused and deployment.status == "deploying":
                    self.pause(deployment, False)
            if self._waiting():
                self.work_off(0)
            for number in range(len(self.agents)):
                self.beat(number)
            self.report_all("end")
            if self._waiting():
                self.work_off(0)
            self.holds()
            if self._rows() == before:
                open_ones = {d.status for d in self.model.deployments} & {*m.IN_FLIGHT, "pending_approval"}
                if not open_ones:
                    break
                self.wait(600)
                self.sweep()
        else:
            raise AssertionError("it never ends")
        self.seal()


def _no_storage(*_: object) -> None:
    raise OSError("no space left on device")


@pytest.mark.django_db
def test_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"BYTEOR_TEST_SEED={SEED}")
    Stories.scene = Scene()
    monkeypatch.setattr(timezone, "datetime", Clock)
    hypothesis.seed(SEED)(Stories)
    hypothesis.stateful.run_state_machine_as_test(
        Stories,
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
