"""The base of the random stories of ``test_stateful``: actions, invariants, and the comparison with the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent
from apps.releases.models import Deployment, TimelineEntry
from apps.tenancy.api import limits
from apps.tenancy.models import AuditEvent, Environment
from byteor.engine.machines import DEPLOYMENT, DeploymentEvent
from byteor_cloud import ids
from tests.releases import model_records as m
from tests.releases.model import Model
from tests.releases.stage import StoryClock, StoryWorld, rows_of, rows_of_model
from tests.worlds import Api

any_index = st.integers(0, 20)  # an index into a list of unknown length, taken modulo the length

# The events of holds and reviewers, with counts that no story reaches: ``counter & HOLD_EVENTS`` keeps only these.
HOLD_EVENTS = Counter(
    dict.fromkeys(
        ["hold", "next_wave", "wave_approved", "wave_denied", "wave_expired", "wave_revoked", "change_reviewers"],
        10_000,
    )
)
NO_TRANSITIONS = {"pause", "resume", "agents_failed", "wave_started", *HOLD_EVENTS}

type When = Callable[[Story], object]
ACTIONS: list[tuple[str, int, When, dict[str, Any]]] = []


def random_action[F: Callable[..., None]](weight: int, *, when: When = bool, **arguments: Any) -> Callable[[F], F]:
    """Declare a random action with a relative frequency. ``when`` returns whether the action is possible."""

    def declare(function: F) -> F:
        ACTIONS.append((function.__name__, weight, when, arguments))
        return function

    return declare


class Story(RuleBasedStateMachine):
    """One environment, compared with the model after each action. Its changes are rolled back at the end."""

    scene: ClassVar[StoryWorld]

    def __init__(self) -> None:
        super().__init__()
        limits.clear_local()
        StoryClock.at, ids._last = self.scene.start, 0
        self.story = transaction.atomic()
        self.story.__enter__()
        self.model = Model(m.Policy())
        self.ids: list[UUID] = []  # ids of the deployments, by number
        self.agents: list[tuple[Agent, Api]] = []
        self.seen: list[tuple[int, int, int]] = []  # the offers found after any action: (agent, by, source)
        self.timeline_seen = Counter[UUID]()
        self.statuses: dict[int, str] = {}
        self.used: set[int] = set()
        self.audited = 0
        self.queue: list[ProcrastinateJob] = []
        # The waves that people let start, by deployment number: (whether the wave was approved, wave).
        self.let_start: dict[int, list[tuple[bool, int]]] = {}

    def _set(self, **changed: Any) -> None:
        settings = Environment.objects.get(pk=self.scene.here.pk).settings
        Environment.objects.filter(pk=self.scene.here.pk).update(settings={**settings, **changed})

    @staticmethod
    def _check_response(response: Any, refusals: set[str] | str | None, expected: int = 200) -> None:
        """Check that the response has the status ``expected`` or, if given, one of the problem codes ``refusals``."""
        if not refusals:
            assert response.status_code == expected, response.json()
            return
        problem = response.json()
        code = problem.get("type", "not refused").removeprefix("urn:byteor:problem:")
        assert code in ({refusals} if isinstance(refusals, str) else refusals), (problem, refusals)
        assert response.status_code == problem["status"]

    def _post(self, rest: str, body: Any = None, *, by: str = "operator") -> Any:
        return self.scene.people[by].api.post(self.scene.path(rest), body)

    def _agent(self, number: int) -> tuple[m.Agent, Agent, Api]:
        number %= len(self.agents)
        return (self.model.agents[number], *self.agents[number])

    def _hash(self, number: int) -> str | None:
        return Deployment.objects.get(pk=self.ids[number]).bundle_hash

    def _waiting(self) -> list[ProcrastinateJob]:
        """Return the waiting jobs, even those scheduled for later. Of several with the same lock, return the first."""
        found: dict[str, ProcrastinateJob] = {}
        for job in ProcrastinateJob.objects.filter(status="todo").order_by("id"):
            found.setdefault(job.lock or f"job {job.pk}", job)
        return list(found.values())

    @invariant()
    def check(self) -> None:
        rows = rows_of(self.scene, self.ids, [agent.pk for agent, _ in self.agents]) if self.agents else {}
        if rows:
            self._check_transitions(rows["deployments"], rows["approvals"])
            self._check_invariants(rows)
            rows.pop("progress_counts")
            assert rows == rows_of_model(self.model)
        self.queue = self._waiting()

    def _check_transitions(self, deployments: dict[int, Any], approvals: dict[int, Any]) -> None:
        """Check that the new timeline entries lead to the current status. Compare all hold events with the model."""
        entries = TimelineEntry.objects.filter(deployment__environment=self.scene.here).order_by("id")
        events: dict[UUID, list[str]] = {pk: [] for pk in self.ids}
        for pk, event in entries.values_list("deployment_id", "event"):
            events[pk].append(event)
        for number, (status, *_) in deployments.items():
            pk = self.ids[number]
            at = self.statuses.get(number)
            assert Counter(events[pk]) & HOLD_EVENTS == self.model.deployments[number].events
            for event in events[pk][self.timeline_seen[pk] :]:
                if event == "create":
                    assert at is None
                    waits = number in approvals and not approvals[number][1]
                    at = "pending_approval" if waits else "approved"
                elif event not in NO_TRANSITIONS and not event.startswith("break_glass_"):
                    assert at is not None
                    at = DEPLOYMENT.target(at, DeploymentEvent(event))
            assert status == at, (number, self.statuses.get(number), events[pk][self.timeline_seen[pk] :], status)
            self.timeline_seen[pk] = len(events[pk])
            self.statuses[number] = status

    def _check_invariants(self, rows: dict[str, Any]) -> None:
        """Check the rules that the rows of every story satisfy."""
        deployments = rows["deployments"]
        current = [n for n, row in deployments.items() if row[2]]
        assert all(deployments[n][0] in {"active", "rolling_back"} for n in current)
        pipelines = [self.model.deployments[n].bundle.pipeline for n in current]
        assert len(pipelines) == len(set(pipelines))
        counted = Counter((n, *part[:2], part[3]) for (n, _), part in rows["parts"].items())
        assert rows["progress_counts"] == counted
        # Rollbacks are not counted here, because they may start even if the limit is reached.
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
            is_waiting = (action, progress) == ("activate", "pending")
            assert wave <= deployments[n][5] or is_waiting
            assert is_waiting or self._may_have_started(n, wave)
        used = {n for n, (_, _, used, _) in rows["approvals"].items() if used}
        assert used >= self.used
        self.used = used
        audited = AuditEvent.objects.count()
        assert audited >= self.audited
        self.audited = audited

    def _may_have_started(self, number: int, wave: int) -> bool:
        """Return whether people have ended every hold up to the wave. Only an approval can end an approval hold."""
        holds = self.model.deployments[number].strategy.holds[: wave + 1]
        return all(
            any(upto >= n and (approved or hold == "manual") for approved, upto in self.let_start.get(number, []))
            for n, hold in enumerate(holds) if hold is not None
        )  # fmt: skip
