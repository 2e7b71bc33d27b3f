"""Random stories about the replay gate, compared with a model that never asks the gate's own functions.

An oracle replaces the replays, so the stories need no child processes. The captures have no content, and the clock is
simulated. BYTEOR_TEST_SEED=… chooses other stories, and BYTEOR_TEST_EXAMPLES=… their number.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Fixture, Replay
from apps.artifacts.services import fixtures, regression_runs
from apps.fleet.models import Agent, Assignment, Heartbeat
from apps.releases.jobs import BuildBundle, RunRegression
from apps.releases.models import Approval, Deployment, KnownBad, Regression
from apps.releases.services import regression_queue
from apps.releases.tasks import renew_tests, sweep
from apps.tenancy.api import limits
from apps.tenancy.models import Environment
from byteor_cloud import ids
from tests.artifacts import gate_model as m
from tests.artifacts.kept import MASK, STAGES
from tests.releases.stage import Crash, StoryClock, crash_before, run_stories
from tests.releases.stories import send_heartbeat_running
from tests.worlds import Api, World, plan, report, run_job

EXAMPLES = int(os.environ.get("BYTEOR_TEST_EXAMPLES", "8"))
STEPS = 25
CONFIGS, CAPTURES, SITES = 3, 3, "aab"
TTL_S = 3600


def random_oracle(chosen: Random) -> m.Oracle:
    """Return an oracle. One in five has a configuration that fails, and one in five a baseline that cannot run."""
    return m.Oracle(
        outputs=[chosen.choices("xyz", k=CAPTURES) for _ in range(CONFIGS)],
        failing=frozenset({(0, 0)} if chosen.randrange(5) == 0 else ()),
        missing=frozenset({1} if chosen.randrange(5) == 0 else ()),
        work=chosen.choices([10, 15], k=CONFIGS),
    )


def random_gate(chosen: Random) -> m.Gate:
    return m.Gate(
        mode=chosen.choice(["require"] * 6 + ["warn", "off"]),
        approvals=chosen.choice([True, False]),
        self_approval=chosen.choice([True, False, False]),
        min_fixtures=chosen.choice([0, 0, 0, 1, 2]),
        max_increase=chosen.choice([None, None, None, None, 0, 50]),
    )


# Each action with its relative frequency. The arguments of all actions have the same names.
ACTIONS = {
    "request": 5, "release": 1, "push": 5, "work_off": 4, "work": 2, "wait": 2, "keep": 3, "remove": 2,
    "change_expiry": 1, "accept": 5, "decide": 4, "abort": 1, "cancel": 1, "request_regression": 1,
    "change_settings": 1, "report": 2, "switch": 3, "roll_back": 1, "forget": 1,
}  # fmt: skip
FAILURES = {
    "aborted", "approval_denied", "approval_expired", "empty_target", "known_bad", "replay_gate", "rollback_failed",
    "threshold", "timeout",
}  # fmt: skip


class GateWorld:
    """The initial state of all stories, created once: configurations of one version, captures and agents."""

    def __init__(self) -> None:
        self.world = World("acme")
        self.here = self.world.environment("staging", "here")
        version = self.world.version(self.here, plan(stages=STAGES))
        self.bundles = [
            self.world.bundle(
                self.here, f"config {number}", version=version,
                stage_config={"check": {"schema": {"title": str(number)}}, "redact": MASK},
            ) for number in range(CONFIGS)
        ]  # fmt: skip
        self.agents = [
            (site, *self.world.agent(self.here, f"agent {number}", site=site)) for number, site in enumerate(SITES)
        ]
        body = {"name": "ci", "role": "operator"}
        token = self.world.admin.api.post(f"/api/v1/orgs/{self.world.organization.pk}/api-keys", body).json()["token"]
        self.people: dict[str, Api] = {
            "operator": self.world.operator.api, "reviewer": self.world.reviewer.api, "admin": self.world.admin.api,
            "machine": Api(token),
        }  # fmt: skip
        self.captures = [
            Artifact.objects.create(
                environment=self.here, agent=self.agents[0][1], kind="incident_bundle", status="verified",
                captured_at=timezone.now(), content_hash=f"sha256:{number:064}", size_bytes=1, declared=str(number),
                version=version, spec_hash=version.spec_hash,
            ) for number in range(CAPTURES)
        ]  # fmt: skip
        ProcrastinateJob.objects.all().delete()
        self.start = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
        Agent.objects.update(created_at=self.start)


class Stories(RuleBasedStateMachine):
    """One environment with one pipeline. Its changes are rolled back at the end of the story."""

    scene: ClassVar[GateWorld]
    oracle: ClassVar[m.Oracle]  # for the replacement of ``judge_batch``
    model: m.Model
    chosen: Random

    def __init__(self) -> None:
        super().__init__()
        limits.clear_local()
        StoryClock.at, ids._last = self.scene.start, 0
        self.story = transaction.atomic()
        self.story.__enter__()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.end()
        finally:
            transaction.set_rollback(True)
            self.story.__exit__(None, None, None)

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """Start a story in which agents run one or two configurations, with some fixtures.

        The seed decides the whole story. If Hypothesis drew each value, many stories would begin in the same way.
        """
        self.chosen = chosen = Random(seed)
        oracle, gate = random_oracle(chosen), random_gate(chosen)
        note(f"{oracle} {gate}")
        hashes = [each.config_hash for each in self.scene.bundles]
        self.model = m.Model(oracle, hashes, SITES, gate, running=[None] * len(SITES))
        Stories.oracle = oracle
        self._set(gate)
        for site in (None, "b"):
            self._release(chosen.randrange(CONFIGS), site)
        for number in range(chosen.randrange(1, 4)):
            self.keep(number, 0, flag=False)

    @rule()
    def next(self) -> None:
        """Do one random action, and check what the waiting deployments show."""
        chosen = self.chosen
        [action] = chosen.choices(list(ACTIONS), list(ACTIONS.values()))
        arguments = {
            "which": chosen.randrange(21), "other": chosen.randrange(21), "flag": chosen.choice([True, False]),
            "by": chosen.choice(["operator", "reviewer", "admin", "machine"]), "gate": random_gate(chosen),
        }  # fmt: skip
        note(f"{action} {arguments}")
        getattr(self, action)(**arguments)
        self._observe()
        self._check()

    # Callers

    def _post(self, rest: str, body: Any = None, *, by: str = "operator") -> Any:
        return self.scene.people[by].post(self.scene.world.path(self.scene.here, rest), body)

    @staticmethod
    def _expect(response: Any, code: str | None, expected: int = 200) -> bool:
        """Check that the response is a refusal with this code or, without a code, has the status ``expected``.

        Return whether there is no code.
        """
        if code is None:
            assert response.status_code == expected, response.json()
        else:
            assert response.json()["type"] == f"urn:byteor:problem:{code}", (response.json(), code)
        return code is None

    def _set(self, gate: m.Gate) -> None:
        settings = {
            "replay_gate": gate.mode, "approvals_required": gate.approvals, "allow_self_approval": gate.self_approval,
            "replay_gate_min_fixtures": gate.min_fixtures, "max_work_increase_percent": gate.max_increase,
            "approval_ttl_s": TTL_S, "agent_timeout_s": 2 * TTL_S, "max_in_flight_deployments": 1,
        }  # fmt: skip
        Environment.objects.filter(pk=self.scene.here.pk).update(settings=settings)
        self.model.gate = gate

    def change_settings(self, gate: m.Gate, **_: Any) -> None:
        self._set(gate)

    def request(self, which: int, other: int, by: str, flag: bool, **_: Any) -> None:
        """Request a deployment, sometimes by break-glass, with an override, or with the approval of a failed one."""
        site = None if other % 3 else "ab"[other % 2]
        self._request(which % CONFIGS, site, by, overrides=other in {1, 2}, breaks=flag and by == "admin")

    def _request(
        self, config: int, site: str | None, by: str, *, overrides: bool = False, breaks: bool = False
    ) -> m.Deployment | None:
        gate, bundle = self.model.gate, self.scene.bundles[config]
        breaks = breaks and gate.approvals
        target = {"all": True} if site is None else {"selector": {"site": site}}
        body: dict[str, Any] = {"config_bundle_id": str(bundle.pk), "target": target}
        if overrides:
            body["override_replay_gate"] = {"reason": "urgent"}
        if breaks:
            body["break_glass"] = {"reason": "urgent"}
        unused = Approval.objects.filter(environment=self.scene.here, status="approved", used_at=None)
        usable = unused.filter(deployment__status="failed", config_hash=bundle.config_hash).first()
        handed_in = usable if not breaks and gate.approvals and by != "machine" else None
        if handed_in is not None:
            body["approval"] = handed_in.credential
        code = None
        if overrides and by not in {"admin"}:
            code = "forbidden"
        elif KnownBad.objects.filter(environment=self.scene.here, config_hash=bundle.config_hash).exists():
            code = "known_bad"
        elif self.model.in_flight():
            code = "in_flight_limit"
        response = self._post("/deployments", body, by=by)
        if handed_in is not None and code is None and response.status_code != 201:
            assert response.json()["type"].startswith("urn:byteor:problem:approval."), response.json()
            return None
        if not self._expect(response, code, 201):
            return None
        pk = UUID(response.json()["id"])
        requester = "admin" if by == "machine" else by
        made = m.Deployment(pk, config, site, gate, requester, overrides, breaks, StoryClock.at)
        self.model.deployments[pk] = made
        self._observe()
        waits = gate.approvals and not breaks and handed_in is None
        assert made.status == ("pending_approval" if waits else "approved")
        assert (made.regression is None) is (gate.mode == "off")
        return made

    def decide(self, which: int, by: str, flag: bool, other: int, **_: Any) -> None:
        rows = Approval.objects.filter(environment=self.scene.here, status="pending").order_by("pk")
        pending = list(rows.values_list("deployment", flat=True))
        if by == "machine" or not pending:
            return
        chosen = self.model.deployments[pending[which % len(pending)]]
        self._decide(chosen, by, "deny" if other == 0 else "approve", accepts=flag)

    def _decide(self, deployment: m.Deployment, by: str, decision: str, *, accepts: bool = False) -> None:
        """Decide on a pending deployment. With ``accepts``, an approval also accepts what the regression shows."""
        approval = Approval.objects.get(deployment=deployment.pk)
        body: dict[str, Any] = {"deployment_id": str(deployment.pk), "decision": decision, "comment": "seen"}
        tested = None if deployment.regression is None else self.model.regressions[deployment.regression]
        stands_still = tested is not None and tested.facts is None and not tested.is_canceled
        facts = None if tested is None else tested.facts
        accepts = accepts and decision == "approve" and facts is not None and bool(facts.differing)
        made = None
        if approval.expires_at <= StoryClock.at and not stands_still:
            code: str | None = "approval.expired"
        elif decision == "approve" and by == deployment.requester and not deployment.counts_own:
            code = "approval.self"
        else:
            code = None
            if accepts and facts is not None:
                body["accept_groups"] = sorted({group for group, _ in facts.differing})
                made = m.Acceptance(deployment.config, facts.differing, by)
                self.model.acceptances.append(made)
            if decision == "approve":
                code = next(iter(self.model.shown(deployment)), None)
        if not self._expect(self._post("/approvals", body, by=by), code, 201) and made is not None:
            self.model.acceptances.remove(made)

    def accept(self, which: int, by: str, flag: bool, other: int, **_: Any) -> None:
        """Accept all groups that a regression shows, or one of them. If it shows none, try to accept an unknown one."""
        waiting = [each for each in self.model.deployments.values() if each.status in m.WAITING and each.regression]
        if not waiting:
            return
        chosen = waiting[which % len(waiting)]
        assert chosen.regression is not None
        tested = self.model.regressions[chosen.regression]
        shown = sorted({group for group, _ in tested.facts.differing}) if tested.facts else []
        groups = [shown[other % len(shown)]] if shown and flag else shown or [m.group_id("nothing")]
        affected = [each for each in waiting if each.regression == chosen.regression]
        gates = [self.model.gate, *(each.gate for each in affected)]
        person = "admin" if by == "machine" else by
        if by == "machine" and any(gate.approvals for gate in gates):
            code = "acceptance.person"
        elif all(each.requester == person and not each.counts_own for each in affected):
            code = "acceptance.self"
        elif tested.facts is None:
            code = "acceptance.no_result"
        elif not shown:
            code = "invalid"
        else:
            code = None
        body = {"groups": groups, "reason": "wanted"}
        if self._expect(self._post(f"/regressions/{chosen.regression}/acceptances", body, by=by), code, 201):
            assert tested.facts is not None
            differences = frozenset(each for each in tested.facts.differing if each[0] in groups)
            accepter = None if by == "machine" else by
            self.model.acceptances.append(m.Acceptance(chosen.config, differences, accepter))

    def push(self, which: int, **_: Any) -> None:
        """Do what deployments need in order to finish: test them, accept what differs, approve, build and report."""
        self.report(which, flag=False, other=1)
        self.work_off()
        self.accept(which, "reviewer", flag=False, other=0)
        pending = [each for each in self.model.deployments.values() if each.status == "pending_approval"]
        if pending:
            self._decide(pending[which % len(pending)], "reviewer", "approve")
        self.work_off()
        self.report(which, flag=False, other=1)

    def abort(self, which: int, **_: Any) -> None:
        alive = [each for each in self.model.deployments.values() if each.status in (*m.WAITING, "deploying")]
        if alive:
            self._expect(self._post(f"/deployments/{alive[which % len(alive)].pk}/abort", {}), None)

    def roll_back(self, **_: Any) -> None:
        for each in self.model.deployments.values():
            if each.is_current and each.status == "active":
                response = self._post(f"/deployments/{each.pk}/rollback", {"reason": "why"})
                assert response.status_code in {200, 409}, response.json()
                return

    def cancel(self, which: int, **_: Any) -> None:
        unfinished = [pk for pk, each in self.model.regressions.items() if each.facts is None and not each.is_canceled]
        if unfinished:
            pk = unfinished[which % len(unfinished)]
            self._expect(self._post(f"/regressions/{pk}/cancel", {}), None)
            self.model.regressions[pk].is_canceled = True

    def forget(self, which: int, **_: Any) -> None:
        """Delete a finished regression of a deployment, as retention does."""
        found = {each.regression for each in self.model.deployments.values()}
        tested = [pk for pk, each in self.model.regressions.items() if pk in found and each.facts is not None]
        if tested:
            Regression.objects.filter(pk=tested[which % len(tested)]).delete()

    def request_regression(self, which: int, **_: Any) -> None:
        """Request a regression.

        Waiting deployments of its configuration get it if it compares with what their agents run, unless their gate is
        off.
        """
        waiting = [each for each in self.model.deployments.values() if each.status in m.WAITING]
        config = waiting[which % len(waiting)].config if waiting else which % CONFIGS
        response = self._post("/regressions", {"config_bundle_id": str(self.scene.bundles[config].pk)})
        self._expect(response, None, 202)
        pk = UUID(response.json()["id"])
        baselines = self.model.baselines(None)
        self.model.regressions[pk] = m.Regression(config, baselines)
        self._observe()
        for each in waiting:
            is_covered = each.config == config and set(self.model.baselines(each.site)) == set(baselines)
            assert (each.regression == pk) is (is_covered and each.gate.mode != "off"), each

    # Fixtures

    def keep(self, which: int, other: int, flag: bool, **_: Any) -> None:
        """Keep a capture, sometimes with a golden result, and sometimes only for ten minutes or an hour."""
        capture, golden = which % CAPTURES, other % CONFIGS if other >= 15 else None
        expected = None
        if golden is not None:
            bundle = self.scene.bundles[golden]
            result: dict[str, Any] = {"egress": {}, "stop": None, "actions": []}
            expected = {"result": result, "spec_kv": bundle.version.spec_kv, "stage_config": bundle.stage_config}
        expires_at = StoryClock.at + timedelta(seconds=[600, TTL_S][other % 2]) if flag else None
        made = fixtures.create(
            self.scene.captures[capture], environment=self.scene.here, name=f"fixture {uuid4()}",
            expires_at=expires_at, golden=None if golden is None else Replay(pk=uuid4()),
            checked=fixtures.Checked("quotes", expected, None), actor=self.scene.world.operator.actor,
        )  # fmt: skip
        self.model.fixtures[made.pk] = m.Fixture(capture, golden, expires_at)

    def remove(self, which: int, **_: Any) -> None:
        if found := sorted(self.model.fixtures):
            pk = found[which % len(found)]
            fixtures.delete(Fixture.objects.get(pk=pk), actor=self.scene.world.admin.actor)
            del self.model.fixtures[pk]

    def change_expiry(self, which: int, flag: bool, **_: Any) -> None:
        """Let a fixture expire in a minute, or never, even if it has expired."""
        if found := sorted(self.model.fixtures):
            pk = found[which % len(found)]
            expires_at = StoryClock.at + timedelta(seconds=60) if flag else None
            row = Fixture.objects.get(pk=pk)
            fixtures.update(row, {"expires_at": expires_at}, may_manage=True, actor=self.scene.world.admin.actor)
            self.model.fixtures[pk].expires_at = expires_at

    # Agents

    def report(self, which: int, flag: bool, other: int, **_: Any) -> None:
        """Let one or all agents report that they run what they are offered. If ``other`` is 0, they report failures."""
        for number in [which % len(SITES)] if flag else range(len(SITES)):
            self._report(number, "failed" if other == 0 else "active")

    def _report(self, number: int, status: str) -> None:
        _, agent, api = self.scene.agents[number]
        offer = Assignment.objects.get(agent=agent)
        if offer.bundle_hash is None:
            return
        word = "rolled_back" if offer.action == "rollback" and status == "active" else status
        response = report(api, agent, word)
        if response.status_code == 200 and status == "active":
            self._run(number, None)

    def switch(self, which: int, other: int, **_: Any) -> None:
        """Let an agent run the bundle of any deployment."""
        built = [each for each in self.model.deployments.values() if each.bundle_hash]
        self._run(which % len(SITES), built[other % len(built)])

    def _run(self, number: int, runs: m.Deployment | None) -> None:
        _, agent, api = self.scene.agents[number]
        row = None if runs is None else Deployment.objects.get(pk=runs.pk)
        send_heartbeat_running(agent, api, runs=row)
        beat = Heartbeat.objects.get(agent=agent)
        built = {each.bundle_hash: each.config for each in self.model.deployments.values()}
        self.model.running[number] = built[beat.running_bundle_hash]

    def release(self, which: int, flag: bool, **_: Any) -> None:
        self._release(which % CONFIGS, "b" if flag else None)

    def _release(self, config: int, site: str | None) -> None:
        """Deploy a configuration with an override, and let the agents run it, unless the request is refused."""
        made = self._request(config, site, "admin", overrides=True)
        if made is None:
            return
        if made.status == "pending_approval":
            self._decide(made, "reviewer", "approve")
        self.work_off()
        for number in range(len(SITES)):
            if made.status == "deploying" and site in (None, SITES[number]):
                self._report(number, "active")
        self.work_off()

    # The worker and the clock

    def _queue(self) -> list[ProcrastinateJob]:
        found: dict[str, ProcrastinateJob] = {}
        for job in ProcrastinateJob.objects.filter(status="todo").order_by("id"):
            found.setdefault(job.lock or f"job {job.pk}", job)
        return list(found.values())

    def work(self, which: int, **_: Any) -> None:
        """Run one job, if there is one."""
        if queue := self._queue():
            self._run_job(queue[which % len(queue)])

    def work_off(self, which: int = 0, **_: Any) -> None:
        """Run jobs until none is left."""
        for _turn in range(100):
            if not (queue := self._queue()):
                return
            self._run_job(queue[which % len(queue)])
        raise AssertionError("a job keeps enqueuing itself")

    def _run_job(self, job: ProcrastinateJob) -> None:
        ProcrastinateJob.objects.filter(pk=job.pk).delete()
        if job.task_name == BuildBundle.name:
            self._build(self.model.deployments[UUID(job.args["deployment_id"])], job)
            return
        self._run_or_crash(job)
        if job.task_name == RunRegression.name:
            # The model does not contain regressions of what runs now, because they belong to no deployment.
            tested = self.model.regressions.get(UUID(job.args["regression_id"]))
            if tested is not None and not tested.is_canceled:
                tested.facts = self.model.test(tested.candidate, tested.baselines, StoryClock.at)
        self._observe()

    def _run_or_crash(self, job: ProcrastinateJob) -> None:
        """Run the job. Sometimes its first attempt crashes before a statement, or before the job is marked as done."""
        if self.chosen.randrange(4) == 0:
            with suppress(Crash), crash_before(self.chosen.randrange(80)):
                run_job(job)
        run_job(job)

    def _build(self, deployment: m.Deployment, job: ProcrastinateJob) -> None:
        """Run a build. Check that it starts only if nothing blocks it, and that it otherwise has a reason not to."""
        was_waiting = deployment.status == "approved"
        truth = self.model.truth(deployment, StoryClock.at)
        before, others = self.model.shown(deployment), self.model.other_blockers(deployment)
        self._run_or_crash(job)
        self._observe()
        after = self.model.shown(deployment)
        if not was_waiting:
            return
        if deployment.status in {"building", "deploying", "active"}:
            assert (truth, before, others) == ([], [], []), deployment
        elif deployment.status == "approved":
            assert others or after, deployment
            if not before:
                deployment.blocked_since = None
            if not others and after and after != ["replay_gate.running"] and deployment.blocked_since is None:
                deployment.blocked_since = StoryClock.at
            if not others and deployment.regression is not None and after != ["replay_gate.running"]:
                assert self.model.regressions[deployment.regression].is_canceled or after == truth, deployment
            self._check_explained(deployment)
        elif deployment.reason == "replay_gate":
            assert before
            assert before != ["replay_gate.running"]
            assert deployment.blocked_since is not None
            assert StoryClock.at - deployment.blocked_since >= timedelta(seconds=TTL_S)

    def wait(self, which: int, flag: bool, **_: Any) -> None:
        StoryClock.at += timedelta(seconds=[60, 300, 700, TTL_S][which % 4])
        self._observe()
        if flag:
            self._sweep()

    def _sweep(self) -> None:
        sweep()
        renew_tests()
        self._observe()

    # Checks

    def _observe(self) -> None:
        """Read what the model does not predict: the columns of deployments, and new regressions.

        Check the baselines of new regressions, and the reasons of failed deployments.
        """
        names = {
            "status": "status", "reason": "reason", "is_current": "is_current", "bundle_hash": "bundle_hash",
            "regression": "regression_id",
        }  # fmt: skip
        rows = Deployment.objects.filter(environment=self.scene.here).values("pk", *names.values())
        self.model.observe({row["pk"]: {name: row[column] for name, column in names.items()} for row in rows})
        asked = {each.regression: each for each in self.model.deployments.values()}
        for row in Regression.objects.filter(environment=self.scene.here).exclude(pk__in=self.model.regressions):
            deployment = asked.get(row.pk)
            if deployment is None:
                continue  # for no deployment, such as a regression of what runs now
            baselines = self.model.baselines(deployment.site)
            assert tuple(each["config_hash"] for each in row.baselines) == tuple(
                self.model.hashes[each] for each in baselines
            )
            self.model.regressions[row.pk] = m.Regression(deployment.config, baselines)
        for each in self.model.deployments.values():
            assert each.status != "failed" or each.reason in FAILURES, each
            is_early = StoryClock.at - each.created_at < timedelta(seconds=TTL_S)
            assert each.reason != "approval_expired" or each.status != "failed" or not is_early, each

    def _check(self) -> None:
        """Check that each waiting deployment shows what blocks it, and that only aborts have revoked approvals."""
        for deployment in self.model.deployments.values():
            if deployment.status in m.WAITING:
                path = self.scene.world.path(self.scene.here, f"/deployments/{deployment.pk}")
                shown = [each["code"] for each in self.scene.people["reviewer"].get(path).json()["blockers"]]
                assert shown == self.model.other_blockers(deployment) + self.model.shown(deployment), deployment
        revoked = Approval.objects.filter(environment=self.scene.here, status="revoked")
        assert set(revoked.values_list("deployment__reason", flat=True)) <= {"aborted"}
        approved = Approval.objects.filter(environment=self.scene.here, status="approved")
        assert "approval_revoked" not in approved.values_list("deployment__reason", flat=True)

    def _check_explained(self, deployment: m.Deployment) -> None:
        """Check that the explanation of an agent in the target names each blocker that the deployment shows."""
        number = next(n for n, site in enumerate(SITES) if deployment.site in (None, site))
        path = self.scene.world.path(self.scene.here, f"/agents/{self.scene.agents[number][1].pk}/explain")
        because = [each["detail"] for each in self.scene.people["reviewer"].get(path).json()["because"]]
        path = self.scene.world.path(self.scene.here, f"/deployments/{deployment.pk}")
        for each in self.scene.people["reviewer"].get(path).json()["blockers"]:
            assert any(found.lower().endswith(each["detail"].lower()) for found in because), (because, each)

    def end(self) -> None:
        """Let time pass while nobody acts. Check that deployments show their blockers and that none waits forever."""
        for _ in range(60):
            self._sweep()
            self.work_off()
            self._check()
            waiting = [each for each in self.model.deployments.values() if each.status in m.WAITING]
            for each in waiting:
                shown = self.model.shown(each)
                assert shown != ["replay_gate.running"], each
                is_canceled = each.regression is not None and self.model.regressions[each.regression].is_canceled
                if shown and not is_canceled and not self.model.other_blockers(each):
                    assert shown == self.model.truth(each, StoryClock.at), each
            if not waiting:
                return
            StoryClock.at += timedelta(seconds=TTL_S)
        raise AssertionError("a deployment waits forever")


@pytest.mark.django_db
def test_random_stories_about_replay_gate_agree_with_model(monkeypatch: pytest.MonkeyPatch) -> None:
    Stories.scene = GateWorld()
    captures = [each.content_hash for each in Stories.scene.captures]
    monkeypatch.setattr(regression_runs, "judge_batch", m.judge_with(lambda: Stories.oracle, captures))
    monkeypatch.setattr(regression_queue, "MAX_BASELINES", m.MAX_BASELINES)
    run_stories(Stories, monkeypatch, examples=EXAMPLES, steps=STEPS)
