"""Random stories, which are sequences of actions of callers, agents and the worker, compared with ``model``.

In the stories, the worker crashes and the clock jumps. BYTEOR_TEST_SEED=… chooses other stories.
BYTEOR_TEST_EXAMPLES=… sets the number of ``Stories``. There are half as many ``HeldStories``.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    rule,
)

from apps.releases.models import Approval
from apps.tenancy.models import AuditEvent
from tests.releases import model_records as m
from tests.releases.model import Model
from tests.releases.random_holds import Holds, reviewer_lists
from tests.releases.random_story import ACTIONS, any_index, random_action
from tests.releases.random_worker import crashes
from tests.releases.stage import StoryWorld, run_stories

EXAMPLES = int(os.environ.get("BYTEOR_TEST_EXAMPLES", "14"))
STEPS = 40
HELD_STEPS = 30

people = st.sampled_from(["operator", "reviewer", "admin"])
targets = st.one_of(
    st.just(m.Target()),
    st.sampled_from("ab").map(lambda site: m.Target(site=site)),
    st.sets(st.integers(0, 3), min_size=1, max_size=3).map(lambda ns: m.Target(agents=tuple(sorted(ns)))),
)
# Percentages of the waves with their holds. With fewer than five agents, some of five waves are empty.
waves = st.sampled_from([(50, 100), (25, 50, 100), (20, 40, 60, 80, 100)]).flatmap(
    lambda percents: st.tuples(
        st.just(percents),
        st.tuples(st.none(), *[st.sampled_from([None, "manual", "approval", "approval"])] * (len(percents) - 1)),
    )
)
strategies_of_waves = st.builds(
    lambda waves, **options: m.Strategy(percents=waves[0], holds=waves[1] if any(waves[1]) else (), **options),
    waves,
    pause_s=st.sampled_from([0, 0, 60]),
    threshold=st.sampled_from([0, 50, 100]),
    auto_rollback=st.booleans(),
)
held_strategies = st.builds(
    m.Strategy,
    percents=st.just((25, 50, 75, 100)),
    holds=st.tuples(st.none(), *[st.sampled_from([None, "manual", "approval", "approval"])] * 3).filter(any),
    pause_s=st.sampled_from([0, 0, 60]),
    threshold=st.sampled_from([0, 100, 100]),
    auto_rollback=st.booleans(),
)
strategies = st.one_of(
    st.builds(m.Strategy, threshold=st.sampled_from([0, 50]), auto_rollback=st.booleans()),
    strategies_of_waves,
)
starts = st.sampled_from([None] * 5 + [600, 3600])
lists = st.just(()) | st.just(()) | reviewer_lists

# The statuses in which a command is usually tried. Sometimes it is tried in other statuses.
USUAL_STATUSES = {
    "rollback": {"active", "failed", "deploying"},
    "retry": {"failed", "deploying", "active"},
    "abort": {"pending_approval", "approved", "building", "deploying"},
    "pause": {"deploying"},
    "resume": {"deploying"},
    "revoke": {"pending_approval", "approved"},
}


class Stories(Holds):
    """Callers' requests, and the start, the steps and the end of a story."""

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
        """Start a story with ``before`` successful deployments."""
        self.model = Model(m.Policy(approvals, self_approval, in_flight))
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
        """Run one random action. With one rule per action, Hypothesis would use only a few actions in a story."""
        possible = [action for action in ACTIONS if action[2](self) for _ in range(action[1])]
        name, _, _, arguments = possible[data.draw(st.integers(0, len(possible) - 1))]
        getattr(self, name)(**data.draw(st.fixed_dictionaries(arguments), label=name))

    def _create(self, number: int, target: m.Target, strategy: m.Strategy, by: str, **extra: Any) -> None:
        bundle, made = self.scene.bundles[number % len(self.scene.bundles)]
        named: dict[str, Any] = {"all": True}
        if target.agents:
            named = {"agents": [str(self.agents[n][0].pk) for n in target.agents]}
        elif target.site:
            named = {"selector": {"site": target.site}}
        waves: dict[str, Any] = {}
        if len(strategy.percents) > 1:
            waves = {"percents": strategy.percents, "pause_s": strategy.pause_s}
        if strategy.holds:
            waves["holds"] = strategy.holds
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
        if extra.get("start") is not None:
            body["start_at"] = (self.scene.start + timedelta(seconds=extra["start"])).isoformat()
        if extra.get("reviewers"):
            body["reviewers"] = self._user_ids(extra["reviewers"])
        if source := extra.get("submitted"):
            body["approval"] = Approval.objects.get(deployment=self.ids[source.number]).credential
        response = self._post("/deployments", body, by=by)
        obstacles = self.model.obstacles(bundle, target, strategy, by=by, **extra)
        self._check_response(response, obstacles, 201)
        if not obstacles:
            self.ids.append(UUID(response.json()["id"]))
            self.model.create(bundle, target, strategy, by=by, **extra)

    @random_action(
        2,
        number=any_index, at=targets, strategy=strategies, take_over=st.booleans(),
        override_freeze=st.sampled_from([False, False, False, False, True]), by=people, start=starts, reviewers=lists,
    )  # fmt: skip
    def create(self, number: int, at: m.Target, strategy: m.Strategy, by: str, start: int | None, **extra: Any) -> None:
        self._create(number, at, strategy, by, start=None if start is None else self.model.now + start, **extra)

    @random_action(
        4,
        number=any_index, at=targets, strategy=strategies | strategies_of_waves, crash_at=crashes,
        word=st.sampled_from(["end", "end", "failed", "activating", "", "abort"]),
    )  # fmt: skip
    def release(self, number: int, at: m.Target, strategy: m.Strategy, word: str, crash_at: int | None = None) -> None:
        """Request, approve and offer a deployment. Let the agents report ``word``, or abort the deployment.

        The word ``end`` stands for success. With an empty word, the agents do not report.
        """
        # Alternate between bundles, mostly of the first pipeline, so that most rollbacks have a target.
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
                if deployment.hold and number % 4:
                    return
                if deployment.status == "deploying" and deployment.wave_done is not None:
                    self._pass_hold(deployment)
                    self.wait(60, swept=True)

    @random_action(
        1, when=lambda self: self.model.policy.approvals,
        number=any_index, at=targets, strategy=strategies, seconds=st.sampled_from([600, 3600, 7200]),
    )  # fmt: skip
    def break_glass(self, number: int, at: m.Target, strategy: m.Strategy, seconds: int) -> None:
        by = "operator" if number % 8 == 0 else "admin"
        self._create(number, at, strategy, by, take_over=number % 2 == 0, break_glass_s=seconds)

    @random_action(
        1, when=lambda self: any(d.approval and d.approval.was_given for d in self.model.deployments),
        which=any_index, strategy=strategies, same=st.sampled_from([True, True, True, False]), take_over=st.booleans(),
    )  # fmt: skip
    def submit_credential(self, which: int, strategy: m.Strategy, same: bool, take_over: bool) -> None:
        """Request a deployment with the credential of an earlier approval, for the same request or a different one."""
        sources = [d for d in self.model.deployments if d.approval and d.approval.was_given]
        source = sources[which % len(sources)]
        number = source.bundle.number if same else which
        strategy = source.strategy if same else strategy
        take_over = source.take_over if same else take_over
        by = "admin" if source.overrides_freeze else "operator"
        overrides = source.overrides_freeze and same
        reviewers = source.approval.reviewers if source.approval else ()
        self._create(
            number, source.target, strategy, by, take_over=take_over, override_freeze=overrides, submitted=source,
            start=source.start, reviewers=reviewers,
        )  # fmt: skip

    @random_action(
        4, when=lambda self: not self._held(),  # type: ignore[attr-defined]  # the story has this method
        number=any_index, strategy=held_strategies, word=st.sampled_from(["end", "failed"]),
        people=st.just(()) | st.just(()) | reviewer_lists,
    )  # fmt: skip
    def hold(self, number: int, strategy: m.Strategy, word: str, people: tuple[str, ...]) -> None:
        """Request and approve a deployment to all agents, and offer its first wave.

        The first agent reports ``word``. The other agents with an offer report success.
        """
        good = [n for n in range(len(self.scene.bundles)) if n not in self.model.bad]
        before = len(self.ids)
        needs_approval = self.model.policy.approvals or "approval" in strategy.holds
        people = people if needs_approval else ()
        self._create(
            good[number % len(good)] if good else 0, m.Target(), strategy, "operator", take_over=True, reviewers=people
        )
        for deployment in self.model.deployments[before:]:
            if deployment.approval is not None:
                for person in people or ("reviewer", "admin")[: deployment.policy.approvals]:
                    if deployment.approval.status == "pending":
                        self._decide(deployment, person, "approve")
            self.work_off(0, None)
            for agent in self.model.agents[: 1 if word == "failed" else 0]:
                self._report_on_offer(agent, word)
            self.report_all("end")
            self.work_off(0, None)

    def _pick(self, which: int, statuses: set[str]) -> m.Deployment:
        """Return a deployment in one of the statuses if there is one. For every fourth index, return any deployment."""
        fit = [d for d in self.model.deployments if d.status in statuses] if which % 4 else []
        return (found := fit or self.model.deployments)[-1 - which // 4 % len(found)]

    @random_action(
        2, when=lambda self: self.model.policy.approvals and self.ids,
        which=any_index, person=people | st.just("viewer"), word=st.sampled_from(["approve"] * 3 + ["deny"]),
    )  # fmt: skip
    def decide(self, which: int, person: str, word: str) -> None:
        pending = [d for d in self.model.deployments if d.approval and d.approval.status == "pending"]
        found = pending or self.model.deployments
        self._decide(found[-1 - which % len(found)], person, word)

    def _decide(self, deployment: m.Deployment, person: str, word: str) -> None:
        body = {"deployment_id": str(self.ids[deployment.number]), "decision": word, "comment": "seen"}
        response = self._post("/approvals", body, by=person)
        self._check_response(response, self.model.decide(deployment, person, word), 201)

    @random_action(
        8,
        when=lambda self: self.ids,
        which=any_index,
        action=st.sampled_from(["rollback", "rollback", "retry", *USUAL_STATUSES]),
    )
    def command(self, which: int, action: str) -> None:
        deployment = self._pick(which, USUAL_STATUSES[action])
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
            self._check_response(self._post(f"/approvals/{pk}/revoke"), model.revoke(deployment))

    def _command(self, deployment: m.Deployment, action: str, refusals: set[str] | str | None) -> None:
        path = f"/deployments/{self.ids[deployment.number]}/{action}"
        self._check_response(self._post(path, {"reason": "because"}), refusals)

    @random_action(1, when=lambda self: self.model.bad, which=any_index)
    def clear(self, which: int) -> None:
        bad = sorted(self.model.bad)
        bundle, made = self.scene.bundles[bad[which % len(bad)]]
        response = self._post(f"/config-bundles/{made.pk}/clear", {"reason": "mended"})
        self._check_response(response, self.model.clear(bundle))

    def _freeze(self, frozen: bool) -> None:
        start, end = ((self.scene.start + timedelta(days=days)).isoformat() for days in (-1, 90))
        window = {"start": start, "end": end, "time_zone": "UTC", "reason": "year end"}
        self._set(freeze_windows=[window] if frozen else [])
        self.model.frozen = frozen

    @random_action(1, what=st.sampled_from(["freeze", "thaw", "thaw", "seal", "sweep"]))
    def now_and_then(self, what: str) -> None:
        if what in {"freeze", "thaw"}:
            self._freeze(what == "freeze")
        else:
            (self._seal if what == "seal" else self._sweep)()

    def settle(self) -> None:
        """End holds, report and run jobs until no deployment is unfinished. Then check the audit trail."""
        self._freeze(False)
        self._sweep()
        for _ in range(30):
            before = [d.status for d in self.model.deployments]
            self._calm()
            if before == [d.status for d in self.model.deployments]:
                self._check_waits()
            unfinished = [d for d in self.model.deployments if d.status in {*m.IN_FLIGHT, "pending_approval"}]
            if not unfinished and not self.queue:
                break
            for deployment in unfinished:
                self._pass_hold(deployment)
            self.wait(600, swept=True)
        else:
            raise AssertionError("deployments stay unfinished")
        for number in range(len(self.agents)):
            self._send_heartbeat(number)
        held = {f"deployment.{name}": name for name in ("hold", "next_wave", "change_reviewers")}
        audited = AuditEvent.objects.filter(action__in=held, outcome="success").values_list("action", flat=True)
        recorded = sum((d.events for d in self.model.deployments), Counter[str]())
        assert Counter(held[action] for action in audited) == recorded & Counter(dict.fromkeys(held.values(), 10_000))
        self._seal()

    def _calm(self) -> None:
        for deployment in self.model.deployments:
            if deployment.paused is not None and deployment.status == "deploying":
                self._command(deployment, "resume", self.model.pause(deployment, paused=False))
        self.check()
        while True:
            open_ones = [a for a in self.model.agents if a.offer and not a.left and a.progress not in m.ENDS]
            if not open_ones and not self.queue:
                return
            for agent in open_ones:
                self._report_on_offer(agent, "end")
            self.work_off(0, None)
            self.check()


class HeldStories(Stories):
    """Stories with more deployments that have holds, and with more actions on these deployments."""

    WEIGHTS: ClassVar = {
        "hold": 8, "steer": 16, "report": 2, "report_all": 2, "report_late": 2, "work": 2, "work_off": 3, "crash": 2,
        "wait": 2, "change_reviewers": 3, "change_of_fleet": 2, "command": 2, "retry_one": 1, "now_and_then": 1,
    }  # fmt: skip

    @rule(data=st.data())
    def next(self, data: Any) -> None:
        """Run one random action of those in ``WEIGHTS``."""
        possible = [a for a in ACTIONS if a[0] in self.WEIGHTS and a[2](self) for _ in range(self.WEIGHTS[a[0]])]
        name, _, _, arguments = possible[data.draw(st.integers(0, len(possible) - 1))]
        getattr(self, name)(**data.draw(st.fixed_dictionaries(arguments), label=name))


@pytest.mark.django_db
def test_random_stories_of_held_waves_agree_with_reference_model(monkeypatch: pytest.MonkeyPatch) -> None:
    HeldStories.scene = StoryWorld()
    run_stories(HeldStories, monkeypatch, examples=EXAMPLES // 2, steps=HELD_STEPS)


@pytest.mark.django_db
def test_random_deployment_stories_agree_with_reference_model(monkeypatch: pytest.MonkeyPatch) -> None:
    Stories.scene = StoryWorld()
    run_stories(Stories, monkeypatch, examples=EXAMPLES, steps=STEPS)
