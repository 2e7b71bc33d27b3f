"""The blockers that a waiting deployment shows, compared with agents' explanations and builds, in random stories.

BYTEOR_TEST_SEED=… chooses other stories, and BYTEOR_TEST_EXAMPLES=… their number.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apps.fleet.models import Agent
from apps.releases.models import Deployment
from apps.releases.services import builds, explanations, rollout_steps
from apps.tenancy.api import limits
from byteor_cloud import ids
from byteor_cloud.storage import blobs
from tests.releases.stage import StoryClock, StoryWorld, run_stories
from tests.worlds import report

EXAMPLES = int(os.environ.get("BYTEOR_TEST_EXAMPLES", "4"))
STEPS = 14
UNDER_WAY = {"building", "deploying", "rolling_back"}
FINDINGS = {
    "freeze_window": "waits_for_freeze", "in_flight_limit": "waits_for_turn", "pipeline_busy": "waits_for_turn",
    "agents_busy": "waits_for_turn",
}  # fmt: skip
AHEAD_OF_UTC = timedelta(hours=3)  # offset of the freeze windows' time zone


@dataclass(frozen=True)
class Requested:
    """A deployment as it was requested. ``target`` has the numbers of the agents."""

    pk: UUID
    pipeline: str
    target: frozenset[int]
    limit: int
    overrides_freeze: bool


class Waiting(RuleBasedStateMachine):
    """Deployments that wait for freeze windows, the in-flight limit and each other. No worker runs their jobs."""

    scene: ClassVar[StoryWorld]
    seen: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        limits.clear_local()
        StoryClock.at, ids._last = self.scene.start, 0
        self.story = transaction.atomic()
        self.story.__enter__()
        self.requested: list[Requested] = []
        self.drained: set[int] = set()
        self.window: tuple[datetime, datetime, bool] | None = None  # start, end, and whether the window is daily
        self.limit = 1

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.story.__exit__(None, None, None)

    def _post(self, rest: str, body: Any) -> Any:
        return self.scene.people["admin"].api.post(self.scene.path(rest), body)

    def _set(self, **changed: Any) -> None:
        response = self.scene.people["admin"].api.put(self.scene.path(""), {"settings": changed})
        assert response.status_code == 200

    def _statuses(self) -> dict[UUID, str]:
        return dict(Deployment.objects.filter(environment=self.scene.here).order_by("pk").values_list("pk", "status"))

    # A second implementation of the rules.

    def _is_frozen(self) -> bool:
        if self.window is None:
            return False
        start, end, daily = self.window
        since = StoryClock.at - start
        if daily and since > timedelta():
            since %= timedelta(days=1)
        return timedelta() <= since < end - start

    def _expected(self, mine: Requested) -> list[tuple[str, set[UUID]]]:
        """Return the expected blockers: their codes, and the deployments that they name."""
        statuses = self._statuses()
        frozen, agents = self._is_frozen(), mine.target - self.drained
        under_way = [each for each in self.requested if statuses[each.pk] in UNDER_WAY]
        earlier = [
            each for each in self.requested[: self.requested.index(mine)]
            if statuses[each.pk] == "approved" and (each.overrides_freeze or not frozen)
        ]  # fmt: skip
        same = {each.pk for each in under_way + earlier if each.pipeline == mine.pipeline}
        shared = {each.pk for each in under_way + earlier if (each.target - self.drained) & agents} - same
        found: list[tuple[str, set[UUID]]] = []
        if frozen and not mine.overrides_freeze:
            found.append(("freeze_window", set()))
        if len(under_way) >= mine.limit:
            found.append(("in_flight_limit", {each.pk for each in under_way}))
        return found + [(code, pks) for code, pks in (("pipeline_busy", same), ("agents_busy", shared)) if pks]

    # Random actions.

    def create(self, data: Any) -> None:
        site = data.draw(st.sampled_from(["a", "b", "all", ""]))
        named = data.draw(st.sets(st.integers(0, 3), min_size=1, max_size=2)) if not site else set()
        self._create(data.draw(st.integers(0, 4)), site, named, override=data.draw(st.booleans()))

    def _create(self, number: int, site: str, named: set[int], *, override: bool = False) -> None:
        bundle, made = self.scene.bundles[number]
        target: dict[str, Any] = {"all": True} if site == "all" else {"selector": {"site": site}}
        agents = {number for number, (where, *_) in enumerate(self.scene.agents) if site in {where, "all"}} | named
        if named:
            target = {"agents": [str(self.scene.agents[number][1].pk) for number in named]}
        more = {"override_freeze": {"reason": "urgent"}} if override else {}
        body = {"config_bundle_id": str(made.pk), "take_over": True, "target": target, **more}
        in_flight = sum(status in {"approved", *UNDER_WAY} for status in self._statuses().values())

        response = self._post("/deployments", body)

        if self._is_frozen() and not override:
            assert response.json()["type"] == "urn:byteor:problem:freeze_window"
        elif in_flight >= self.limit:
            assert response.json()["type"] == "urn:byteor:problem:in_flight_limit"
        elif not agents - self.drained:
            assert response.status_code == 400
        else:
            assert response.status_code == 201
            pk = UUID(response.json()["id"])
            self.requested.append(Requested(pk, bundle.pipeline, frozenset(agents), self.limit, override))

    def freeze(self, data: Any) -> None:
        begins, lasts, daily = data.draw(
            st.sampled_from([(-30, 60, False), (-30, 300, False), (60, 120, False), (-30, 90, True)])
        )
        start = StoryClock.at.replace(microsecond=0) + timedelta(minutes=begins)
        self.window = (start, start + timedelta(minutes=lasts), daily)
        # The times are sent as wall-clock times. The zone is always three hours ahead of UTC.
        walls = [(edge + AHEAD_OF_UTC).replace(tzinfo=None).isoformat() for edge in self.window[:2]]
        window = {"start": walls[0], "end": walls[1], "time_zone": "Etc/GMT-3", "reason": "the close"}
        self._set(freeze_windows=[{**window, "recurrence": "daily" if daily else None}])

    def thaw(self, data: Any) -> None:
        self.window = None
        self._set(freeze_windows=[])

    def set_limit(self, data: Any) -> None:
        self._set_limit(data.draw(st.sampled_from([1, 2, 3, 4])))

    def wait(self, data: Any) -> None:
        StoryClock.at += timedelta(minutes=data.draw(st.sampled_from([10, 30, 90, 1440])))

    def build(self, data: Any) -> None:
        for each in self._some(data, {"approved"}):
            builds.build(str(each.pk))

    def finish(self, data: Any) -> None:
        for each in self._some(data, {"deploying", "rolling_back"}):
            word = "active" if self._statuses()[each.pk] == "deploying" else "rolled_back"
            for _, agent, api in self.scene.agents:
                report(api, agent, word)  # the report is refused if the agent has no such offer
            rollout_steps.run_step(str(each.pk))

    def abort(self, data: Any) -> None:
        for each in self._some(data, {"approved", "deploying"}):
            assert self._post(f"/deployments/{each.pk}/abort", {"reason": "enough"}).status_code == 200

    def roll_back(self, data: Any) -> None:
        for each in self._some(data, {"deploying", "active"}):
            self._post(f"/deployments/{each.pk}/rollback", {"reason": "latency"})
            bundle = Deployment.objects.get(pk=each.pk).config_bundle_id
            self._post(f"/config-bundles/{bundle}/clear", {"reason": "mended"})

    def drain(self, data: Any) -> None:
        number = data.draw(st.integers(0, 3))
        verb = "undrain" if number in self.drained else "drain"
        self.drained ^= {number}
        agent = self.scene.agents[number][1]
        assert self._post(f"/agents/{agent.pk}/{verb}", {"reason": "repair"}).status_code == 200

    def _some(self, data: Any, statuses: set[str]) -> list[Requested]:
        """Return a list with one of the deployments in these statuses, or an empty list."""
        now = self._statuses()
        fit = [each for each in self.requested if now[each.pk] in statuses]
        return [data.draw(st.sampled_from(fit))] if fit else []

    @initialize(data=st.data())
    def begin(self, data: Any) -> None:
        """Request three deployments, the first while the limit is 1. The second is sometimes built immediately."""
        self._create(0, "a", set())
        self._set_limit(3)
        self._create(3, "b", set())
        if data.draw(st.booleans()):
            builds.build(str(self.requested[1].pk))
        self.create(data)

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        self._set(max_in_flight_deployments=limit)

    @rule(data=st.data())
    def next(self, data: Any) -> None:
        """Run one random action. With one rule per action, Hypothesis would use only a few actions in a story."""
        actions: list[Callable[[Any], None]] = [
            self.create, self.create, self.build, self.build, self.finish, self.finish, self.wait, self.freeze,
            self.thaw, self.set_limit, self.abort, self.roll_back, self.drain,
        ]  # fmt: skip
        data.draw(st.sampled_from(actions))(data)

    # Invariants.

    @invariant()
    def agree(self) -> None:
        statuses = self._statuses()
        for each in self.requested:
            if statuses[each.pk] == "approved":
                expected = self._expected(each)
                self.seen.update([code for code, _ in expected] or ["starts"])
                blockers = self._check_blockers(each, expected)
                self._check_explanation(each, blockers)
                self._check_build(each, starts=not expected)

    def _check_blockers(self, each: Requested, expected: list[tuple[str, set[UUID]]]) -> list[Any]:
        path = self.scene.path(f"/deployments/{each.pk}")
        blockers: list[Any] = self.scene.world.viewer.api.get(path).json()["blockers"]
        assert [(found["code"], {UUID(pk) for pk in found["ids"]}) for found in blockers] == expected
        for found in blockers:
            until = found["until"] and datetime.fromisoformat(found["until"])
            assert (until is not None and until > StoryClock.at) is (found["code"] == "freeze_window")
        return blockers

    def _check_explanation(self, each: Requested, blockers: list[Any]) -> None:
        for number in sorted(each.target - self.drained)[:1]:
            agent = Agent.objects.with_state().select_related("environment").get(pk=self.scene.agents[number][1].pk)
            reasons = [
                (reason.code, reason.detail) for reason in explanations.explain_agent(agent).because
                if reason.deployment_id == each.pk and reason.code in {"offer_due", *FINDINGS.values()}
            ]  # fmt: skip
            assert [code for code, _ in reasons] == ([FINDINGS[found["code"]] for found in blockers] or ["offer_due"])
            for (_, detail), found in zip(reasons, blockers, strict=bool(blockers)):
                assert found["detail"][1:] in detail

    def _check_build(self, each: Requested, *, starts: bool) -> None:
        """Check that the build starts or does not start, as ``starts`` states, and undo its changes."""
        with transaction.atomic():
            with pytest.MonkeyPatch.context() as patched, suppress(OSError):
                patched.setattr(blobs, "put", _no_storage)  # because storing the bundle is the slowest part of a build
                builds.build(str(each.pk))
            assert (self._statuses()[each.pk] != "approved") is starts
            transaction.set_rollback(True)


def _no_storage(*_: object) -> None:
    raise OSError("no space left on device")


@pytest.mark.django_db
def test_explanations_and_blockers_agree_with_builds_in_random_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    Waiting.scene, Waiting.seen = StoryWorld(), Counter()
    run_stories(Waiting, monkeypatch, examples=EXAMPLES, steps=STEPS)
    print(Waiting.seen)
    assert Waiting.seen.keys() == {"starts", *FINDINGS}
