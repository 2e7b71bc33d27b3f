"""A model of the replay gate for random stories: the outputs that an oracle gives, and what must block deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.artifacts.services.fixture_batches import Control, Item, Put
from byteor.engine.canonical import sha256
from byteor.engine.replay import FixtureOutcome, Judgment

MAX_BASELINES = 2  # instead of five, so that three configurations are too many
WAITING = ("pending_approval", "approved")
UNDER_WAY = ("building", "deploying", "rolling_back")


@dataclass(frozen=True, slots=True)
class Oracle:
    """The outcomes of replaying captures through configurations. Both are identified by numbers.

    ``outputs`` has a letter for each configuration and capture; equal letters mean equal outputs. ``failing`` are the
    pairs of a configuration and a capture for which the configuration fails as the candidate. ``missing`` are the
    configurations that cannot run as baselines. ``work`` is the work of each configuration.
    """

    outputs: Sequence[Sequence[str]]
    failing: frozenset[tuple[int, int]]
    missing: frozenset[int]
    work: Sequence[int]

    def judge(self, capture: int, candidate: int, baseline: int) -> tuple[FixtureOutcome, frozenset[str]]:
        """Return the verdict and the ids of the groups of differences."""
        if (candidate, capture) in self.failing:
            return FixtureOutcome.FAILED, frozenset()
        if baseline in self.missing:
            return FixtureOutcome.NOT_TESTED, frozenset()
        after, before = self.outputs[candidate][capture], self.outputs[baseline][capture]
        if after == before:
            return FixtureOutcome.EQUAL, frozenset()
        # Baselines with different outputs share the first group, but not the second.
        return FixtureOutcome.DIFFERENT, frozenset({group_id(after), group_id(before + after)})

    def work_of(self, capture: int, candidate: int, baseline: int) -> tuple[int, int]:
        """Return the work of the candidate and of the baseline, or zeros if nothing was tested."""
        if self.judge(capture, candidate, baseline)[0] is FixtureOutcome.NOT_TESTED:
            return 0, 0
        return self.work[candidate], self.work[baseline]


def group_id(name: str) -> str:
    return sha256(name.encode()).removeprefix("sha256:")


def judge_with(oracle: Callable[[], Oracle], captures: Sequence[str]) -> Callable[[Sequence[Item], Control, Put], None]:
    """Return a replacement for ``judge_batch`` that asks the oracle. ``captures`` are the content hashes.

    The number of a configuration is the title of its schema.
    """

    def number(configuration: Any) -> int:
        return int(configuration.stage_config["check"]["schema"]["title"])

    def judge_batch(batch: Sequence[Item], _: Control, put: Put) -> None:
        for item in batch:
            sides = captures.index(item.content_hash), number(item.candidate), number(item.baseline)
            outcome, groups = oracle().judge(*sides)
            shown = [
                {"id": each, "egress": "out", "kind": "changed", "pointers": ["/x"], "code": None, "count": 1,
                 "example": {"ingress": "quotes_in", "sequence": 1, "before": None, "after": None, "stage": None}}
                for each in sorted(groups)
            ]  # fmt: skip
            put(item.key, Judgment(outcome, shown, work=oracle().work_of(*sides)), True)

    return judge_batch


@dataclass(slots=True)
class Fixture:
    """A fixture. ``golden`` is the configuration whose result is expected, or None to compare with the baselines."""

    capture: int
    golden: int | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """The verdicts of a candidate: the differing groups, each with its baseline (None: a golden result), and counts.

    ``work`` is the total work of the candidate and of the baselines, without golden fixtures and equal configurations.
    """

    differing: frozenset[tuple[str, int | None]] = frozenset()
    verdicts: int = 0
    failed: int = 0
    work: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Regression:
    """A regression. ``facts`` is None until it has finished, and remains None if it is canceled."""

    candidate: int
    baselines: tuple[int, ...]
    facts: Facts | None = None
    is_canceled: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """The environment's settings that affect the replay gate. Each new deployment copies them."""

    mode: str
    approvals: bool
    self_approval: bool
    min_fixtures: int = 0
    max_increase: int | None = None


@dataclass(slots=True)
class Deployment:
    """A deployment. The story updates the columns that the model does not predict."""

    pk: UUID
    config: int
    site: str | None  # the label of the target, or None for all agents
    gate: Gate
    requester: str
    is_overridden: bool
    is_break_glass: bool
    created_at: datetime
    regression: UUID | None = None
    status: str = ""
    reason: str = ""
    is_current: bool = False
    bundle_hash: str | None = None
    blocked_since: datetime | None = None

    @property
    def is_governed(self) -> bool:
        return self.gate.mode == "require" and not self.is_overridden and self.status in WAITING

    @property
    def counts_own(self) -> bool:
        """Whether an acceptance by the requester counts."""
        return not self.gate.approvals or (self.gate.self_approval and not self.is_break_glass)


@dataclass(slots=True)
class Acceptance:
    config: int
    differences: frozenset[tuple[str, int | None]]
    person: str | None  # None for a machine
    has_ended: bool = False


@dataclass(slots=True)
class Model:
    """The state of a story."""

    oracle: Oracle
    hashes: Sequence[str]  # the config hashes, by number
    sites: Sequence[str]  # the label of each agent
    gate: Gate
    running: list[int | None] = field(default_factory=list)
    fixtures: dict[UUID, Fixture] = field(default_factory=dict)
    regressions: dict[UUID, Regression] = field(default_factory=dict)
    deployments: dict[UUID, Deployment] = field(default_factory=dict)
    acceptances: list[Acceptance] = field(default_factory=list)

    def baselines(self, site: str | None) -> tuple[int, ...]:
        """Return at most ``MAX_BASELINES`` configurations that agents run, those with the most agents first.

        Only agents with the label ``site`` count, unless it is None.
        """
        counted = Counter(
            config
            for config, label in zip(self.running, self.sites, strict=True)
            if config is not None and site in (None, label)
        )
        ranked = sorted(counted, key=lambda each: (-counted[each], self.hashes[each]))
        return tuple(ranked[:MAX_BASELINES])

    def test(self, candidate: int, baselines: Iterable[int], now: datetime) -> Facts:
        """Return what a test of the candidate must find with the fixtures that are live at ``now``."""
        differing: set[tuple[str, int | None]] = set()
        verdicts = failed = 0
        work = [0, 0]
        for fixture in self.fixtures.values():
            if fixture.expires_at is not None and fixture.expires_at <= now:
                continue
            for baseline in [fixture.golden] if fixture.golden is not None else list(baselines):
                if fixture.golden is None and baseline == candidate:
                    verdicts += 1  # a configuration equals itself, whatever it does
                    continue
                outcome, groups = self.oracle.judge(fixture.capture, candidate, baseline)
                verdicts += outcome is not FixtureOutcome.NOT_TESTED
                failed += outcome is FixtureOutcome.FAILED
                differing |= {(group, None if fixture.golden is not None else baseline) for group in groups}
                if fixture.golden is None:
                    sides = self.oracle.work_of(fixture.capture, candidate, baseline)
                    work = [work[0] + sides[0], work[1] + sides[1]]
        return Facts(frozenset(differing), verdicts, failed, (work[0], work[1]))

    def blocks(self, deployment: Deployment, facts: Facts) -> list[str]:
        """Return the codes of the gate's blockers for these facts and the acceptances that count now."""
        gate = deployment.gate
        accepted = {
            difference
            for each in self.acceptances
            if each.config == deployment.config and not each.has_ended
            if not gate.approvals or (each.person and (deployment.counts_own or each.person != deployment.requester))
            for difference in each.differences
        }
        found = []
        limit, (candidate, baseline) = gate.max_increase, facts.work
        is_heavy = limit is not None and baseline > 0 and candidate / baseline > 1 + limit / 100
        if facts.failed or is_heavy:
            found.append("replay_gate.failed")
        if facts.differing - accepted:
            found.append("replay_gate.differs")
        if facts.verdicts < gate.min_fixtures:
            found.append("replay_gate.too_few_fixtures")
        return found

    def truth(self, deployment: Deployment, now: datetime) -> list[str]:
        """Return the codes of the gate's blockers, computed from what agents run and which fixtures are live now."""
        if not deployment.is_governed:
            return []
        return self.blocks(deployment, self.test(deployment.config, self.baselines(deployment.site), now))

    def shown(self, deployment: Deployment) -> list[str]:
        """Return the codes of the gate's blockers that the deployment shows, computed from its regression."""
        if not deployment.is_governed:
            return []
        if deployment.regression is None:
            return ["replay_gate.failed"]
        regression = self.regressions[deployment.regression]
        if regression.is_canceled:
            return ["replay_gate.failed"]
        if regression.facts is None:
            return ["replay_gate.running"]
        return self.blocks(deployment, regression.facts)

    def other_blockers(self, deployment: Deployment) -> list[str]:
        """Return the codes of the other blockers of an approved deployment, or nothing if it is not approved.

        Deployments that the gate blocks do not delay others.
        """
        if deployment.status != "approved":
            return []
        others = [each for each in self.deployments.values() if each is not deployment]
        under_way = [each for each in others if each.status in UNDER_WAY]
        earlier = [
            each for each in others if each.status == "approved" and each.pk < deployment.pk and not self.shown(each)
        ]
        found = ["in_flight_limit"] if under_way else []
        return [*found, "pipeline_busy"] if under_way or earlier else found

    def in_flight(self) -> int:
        """Return how many deployments count toward the limit of deployments in flight."""
        return sum(
            each.status in UNDER_WAY or (each.status == "approved" and not self.shown(each))
            for each in self.deployments.values()
        )

    def observe(self, rows: Mapping[UUID, Mapping[str, Any]]) -> None:
        """Copy the observed columns of deployments. End the acceptances of configurations that were newly activated."""
        for pk, row in rows.items():
            deployment = self.deployments[pk]
            if row["is_current"] and not deployment.is_current and deployment.status != "active":
                for each in self.acceptances:
                    each.has_ended = each.has_ended or each.config == deployment.config
            for name, value in row.items():
                setattr(deployment, name, value)
