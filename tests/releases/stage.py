"""The setup of random stories: an organization, a clock, worker crashes, and the rows to compare with the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any, ClassVar, cast
from uuid import UUID

import hypothesis
import pytest
from django.db import connection
from django.db.models import Count, Q, Sum
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent, Assignment
from apps.releases.models import (
    AgentFailure,
    Approval,
    ConfigBundle,
    Deployment,
    DeploymentAgent,
    KnownBad,
    ProgressCount,
)
from byteor_cloud import ids
from byteor_cloud.database.compiled import CompiledQuery
from tests.conftest import SEED
from tests.releases import model_records as m
from tests.releases.model import Model
from tests.worlds import Person, World, plan


class Crash(BaseException):
    """Simulates the end of the worker process. As a BaseException, it is not caught by ``except Exception``."""


@contextmanager
def crash_before(statement: int) -> Iterator[None]:
    """Raise Crash before the block's SQL statement with this number, counted from 0."""
    left = statement

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        # The worker's transactions are savepoints here. Crashing before RELEASE would undo the same changes as crashing
        # before the transaction's last statement, so RELEASE and ROLLBACK are not counted.
        if not sql.startswith(("RELEASE", "ROLLBACK")):
            left -= 1
            if left < 0:
                raise Crash
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield


class StoryClock(datetime):
    """A clock that tests set. Each call of ``now`` advances it by one microsecond.

    It replaces ``datetime`` in ``django.utils.timezone`` and ``time`` in ``byteor_cloud.ids``.
    """

    at: ClassVar[datetime]

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # returns datetime, not Self
        cls.at += timedelta(microseconds=1)
        return cls.at

    @classmethod
    def time_ns(cls) -> int:
        """Return the time that generated ids contain."""
        return int(cls.at.timestamp() * 1_000_000) * 1000


class StoryWorld:
    """The initial state of all stories, created once: organization, bundles and first agents."""

    def __init__(self) -> None:
        self.world = World("acme")
        self.here, self.there = (self.world.environment("staging", name) for name in ("here", "there"))
        self.people: dict[str, Person] = {
            "operator": self.world.operator, "reviewer": self.world.reviewer, "admin": self.world.admin,
            "viewer": self.world.viewer,
        }  # fmt: skip
        self.bundles: list[tuple[m.Bundle, ConfigBundle]] = []
        for pipeline, count in (("quotes", 3), ("trades", 2)):
            version = self.world.version(self.here, plan(pipeline))
            for number in range(count):
                made = self.world.bundle(self.here, f"{pipeline} {number}", version=version, env={"N": str(number)})
                self.bundles.append((m.Bundle(len(self.bundles), pipeline), made))
        self.agents = [
            (site, *self.world.agent(self.here, f"agent {n}", site=site)) for n, site in enumerate("aabb")
        ]  # fmt: skip
        self.stranger = self.world.agent(self.there, "stranger")
        ProcrastinateJob.objects.all().delete()
        # Stories start after the real time. Otherwise the rows created here could be in their future.
        self.start = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
        Agent.objects.update(created_at=self.start)

    def path(self, rest: str) -> str:
        return self.world.path(self.here, rest)


# Queries that run after each action of a story. Django takes longer to compile such a query than to run it.
_DEPLOYMENTS = CompiledQuery[Deployment](lambda here: Deployment.objects.filter(environment=here), UUID)
_ASSIGNMENTS = CompiledQuery[Assignment](
    lambda here: Assignment.objects.filter(agent__environment=here).order_by("agent_id"), UUID
)
_PARTS = CompiledQuery[DeploymentAgent](lambda here: DeploymentAgent.objects.filter(deployment__environment=here), UUID)
_APPROVALS = CompiledQuery[Approval](
    lambda here: (
        Approval.objects.filter(environment=here)
        .select_related("deployment")
        .annotate(given=Count("decisions", filter=Q(decisions__decision="approve")))
        .order_by("rollout_id", "pk")
    ),
    UUID,
)


def rows_of(scene: StoryWorld, deployments: list[UUID], agents: list[UUID]) -> dict[str, Any]:
    """Return the database rows in the form of the model. Ids become indexes into ``deployments`` and ``agents``."""
    number = {pk: n for n, pk in enumerate(deployments)}
    whose = {pk: n for n, pk in enumerate(agents)}
    hashes = {config.config_hash: bundle.number for bundle, config in scene.bundles}
    counts = ProgressCount.objects.filter(deployment__environment=scene.here).order_by()
    by = ("deployment_id", "wave", "counted", "progress")
    mine = AgentFailure.objects.filter(deployment__environment=scene.here)
    failures = mine.values_list("deployment_id", "part__agent_id", "action", "reason")

    def of(pk: UUID | None) -> int | None:
        return None if pk is None else number[pk]

    made = {d.pk: d for d in _DEPLOYMENTS.rows(scene.here.pk)}
    bad = dict(KnownBad.objects.filter(environment=scene.here).values_list("config_hash", "since"))
    assignments = _ASSIGNMENTS.rows(scene.here.pk)
    approvals = _APPROVALS.rows(scene.here.pk)
    return {
        "deployments": {
            number[d.pk]: (
                d.status, d.reason, d.is_current, of(d.superseded_by_id), of(d.restores_id), d.wave,
                d.paused_at is not None, d.bundle_hash is not None,
                d.wave_hold and (d.wave_hold.wave, d.wave_hold.kind.value), len(d.reviewers),
            )
            for d in made.values()
        },
        "approvals": {
            number[a.deployment.pk]: (a.status, a.break_glass, a.used_at is not None, a.given)  # type: ignore[attr-defined]  # annotated
            for a in approvals if a.rollout_id is None
        },
        "wave_approvals": [
            (number[a.rollout_id], a.wave, a.status, a.used_at is not None, a.given, len(a.reviewers))  # type: ignore[attr-defined]  # annotated
            for a in approvals if a.rollout_id is not None
        ],
        "parts": {
            (number[p.deployment_id], whose[p.agent_id]): (p.wave, p.counted, p.action, p.progress, of(p.before_id))
            for p in _PARTS.rows(scene.here.pk)
        },
        "failures": {(number[pk], whose[agent], action): reason for pk, agent, action, reason in failures},
        "progress_counts": {
            (number[pk], *rest): n for pk, *rest, n in counts.values_list(*by).annotate(n=Sum("count")) if n
        },
        "offers": {
            whose[a.agent_id]: (of(a.deployment_id), of(a.bundle_deployment_id), a.action, a.progress)
            for a in assignments
        },
        "bad": {hashes[config_hash] for config_hash in bad},
        # Agents may already have a configuration when it becomes known bad, but none may be offered it later.
        "offered_though_bad": {
            whose[a.agent_id] for a in assignments
            if a.since and a.bundle_deployment_id
            and (since := bad.get(made[a.bundle_deployment_id].config_hash)) and a.since > since
        },
    }  # fmt: skip


def rows_of_model(model: Model) -> dict[str, Any]:
    """Return the model's records in the same form as ``rows_of``, without ``progress_counts``."""
    return {
        "deployments": {
            d.number: (
                d.status, d.reason, d.current, d.superseded_by, d.restores, d.wave, d.paused is not None, d.built,
                d.hold and (d.hold.wave, "approval" if d.hold.approval else "manual"), len(d.reviewers),
            )
            for d in model.deployments
        },
        "approvals": {
            d.number: (a.status, a.broken, a.used, len(a.approved_by))
            for d in model.deployments if (a := d.approval) is not None
        },
        "wave_approvals": [
            (d.number, wave, a.status, a.used, len(a.approved_by), len(a.reviewers))
            for d in model.deployments for wave, a in d.wave_approvals
        ],
        "parts": {
            (d.number, n): (p.wave, p.counted, p.action, p.progress, p.before)
            for d in model.deployments for n, p in d.parts.items()
        },
        "failures": {
            (d.number, n, action): reason
            for d in model.deployments for n, p in d.parts.items() for action, reason in p.failures.items()
        },
        "offers": {
            a.number: (a.offer.by, a.offer.source, a.offer.action, a.progress) if a.offer
            else (None, None, None, a.progress)
            for a in model.agents
        },
        "bad": model.bad,
        "offered_though_bad": set(),
    }  # fmt: skip


def run_stories(
    machine: type[RuleBasedStateMachine], monkeypatch: pytest.MonkeyPatch, *, examples: int, steps: int
) -> None:
    """Run random stories of a state machine with ``StoryClock``. BYTEOR_TEST_SEED selects the stories."""
    print(f"BYTEOR_TEST_SEED={SEED}")
    monkeypatch.setattr(timezone, "datetime", StoryClock)
    monkeypatch.setattr(ids, "time", StoryClock)
    monkeypatch.setattr(ids, "_last", 0)
    run_state_machine_as_test(
        cast(Any, hypothesis.seed(SEED))(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
