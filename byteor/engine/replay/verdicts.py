"""Judges one fixture: replays its records through a candidate, and compares what happens with what is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from byteor.engine.canonical import canonical, sha256
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import Progress
from byteor.engine.replay.lockstep import find_differences
from byteor.engine.replay.replay import ErrorCode, ReplayLimits, replay
from byteor.engine.replay.side_run import Side, tracing_runner
from byteor.engine.replay.stages import Unsupported
from byteor.engine.replay.work import LimitCode

MAX_FIXTURE_WORK = 10**8
"""The maximum work of a new fixture's replay, in the units of ``WorkMeter``. It is a hundredth of a replay's limit."""
MAX_SIDE_WORK = 10 * MAX_FIXTURE_WORK
"""The maximum work of a candidate or a baseline on one fixture, so that one verdict cannot occupy a worker for long."""


class FixtureOutcome(StrEnum):
    """A verdict: the outcome of one fixture for a candidate.

    ``failed``: the candidate exceeded a limit, or cannot run or use the records; or the process of the test died,
    refused its work or took too long, twice.
    ``unstable``: an op of a package gave different results in two runs. ``not_tested``: the candidate could not be
    compared, for example because the baseline cannot run here, or because the capture no longer exists.
    """

    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"
    UNSTABLE = "unstable"
    NOT_TESTED = "not_tested"


@dataclass(frozen=True, slots=True)
class Selected:
    """Which records of a capture a fixture replays: the last ``last_n`` or all, of one lane or of all ingresses."""

    journal_lane: str | None = None
    last_n: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a configuration did with the records of a fixture.

    ``egress`` has the number of records and the digest of each egress. ``stop`` is the place of the stage error that
    stopped the run (``stage, sequence, ingress``), or None. ``actions`` is a digest of the stages and the ops of the
    side effects, in their order.
    """

    egress: Mapping[str, Mapping[str, Any]]
    stop: Mapping[str, Any] | None
    actions: str

    def equals(self, other: Result) -> bool:
        """Return whether the results are equal. Egresses without records are ignored."""
        return self._essence() == other._essence()

    def _essence(self) -> object:
        return {name: each for name, each in self.egress.items() if each["records"]}, self.stop, self.actions

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the result that ``as_json`` wrote."""
        return cls(data["egress"], data["stop"], data["actions"])


@dataclass(frozen=True, slots=True)
class FixtureRun:
    """One run of a configuration on the records of a fixture.

    If the configuration exceeded a limit, or cannot run or use the records, ``result`` is None and ``error`` says why.
    A stage error is part of a result.
    """

    result: Result | None
    work: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """A verdict with its reasons: the groups of differences as JSON data, and how many differences have no group.

    ``records`` is the number of selected records if both sides ran in lockstep, otherwise 0. ``work`` is the work of
    the candidate and of the baseline. ``error`` says why the outcome is ``failed`` or ``not_tested``, or why a
    difference from a golden result has no group. If the outcome is ``unstable``, ``stage`` is a stage that differed
    between two runs, if one is known. ``result`` is the candidate's result as JSON data if a golden result was expected
    and the outcome is ``different``.
    """

    outcome: FixtureOutcome
    groups: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0
    records: int = 0
    work: tuple[int, int] = (0, 0)
    error: str | None = None
    stage: str | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """The recorded results, any of which a fixture expects, and the configuration that produced one of them.

    A candidate with another result is compared with this configuration.
    """

    results: Sequence[Result]
    side: Side


def run_fixture(
    bundle: IncidentBundle,
    side: Side,
    selected: Selected,
    *,
    limits: ReplayLimits | None = None,
    progress: Progress | None = None,
) -> FixtureRun:
    """Run a configuration on the records of a fixture, without side effects. ``progress`` may raise ``Cancelled``."""
    outcome = replay(
        bundle,
        created_unix_ms=0,
        bundle_dir="",
        policy_env="",
        spec=side.spec,
        stage_config=side.stage_config,
        ops=side.ops,
        journal_lane=selected.journal_lane,
        last_n=selected.last_n,
        limits=limits,
        progress=progress,
    )
    if isinstance(outcome.error_code, LimitCode) or outcome.error_code is ErrorCode.BAD_INPUT:
        return FixtureRun(None, outcome.work, outcome.error)
    stop = outcome.stopped and {name: outcome.stopped[name] for name in ("stage", "sequence", "ingress")}
    actions = [[each["stage"], each["action"], each["target"]] for each in outcome.audit["actions"]]
    return FixtureRun(Result(outcome.result["egress"], stop, sha256(canonical(actions))), outcome.work)


def judge_fixture(
    bundle: IncidentBundle,
    candidate: Side,
    expected: Side | Golden,
    selected: Selected,
    *,
    limits: ReplayLimits | None = None,
    progress: Progress | None = None,
) -> Judgment:
    """Return the verdict on a candidate: whether it does the same as a baseline, or gives an expected golden result.

    ``progress`` may raise ``Cancelled``.
    """
    try:
        tracing_runner(candidate, limits or ReplayLimits())
    except Unsupported as error:
        return Judgment(FixtureOutcome.FAILED, error=str(error))
    if not isinstance(expected, Golden):
        try:
            return _compare(bundle, candidate, expected, selected, limits, progress)
        except Unsupported as error:
            return Judgment(FixtureOutcome.NOT_TESTED, error=f"the baseline cannot run: {error}")
    run = run_fixture(bundle, candidate, selected, limits=limits, progress=progress)
    if run.result is None:
        return Judgment(FixtureOutcome.FAILED, work=(run.work, 0), error=run.error)
    if any(run.result.equals(each) for each in expected.results):
        return Judgment(FixtureOutcome.EQUAL, work=(run.work, 0))
    try:
        judged = _compare(bundle, candidate, expected.side, selected, limits, progress)
    except Unsupported as error:
        detail = f"the configuration that gave an expected result cannot run: {error}"
        judged = Judgment(FixtureOutcome.DIFFERENT, more=1, work=(run.work, 0), error=detail)
    if judged.outcome is FixtureOutcome.EQUAL:
        detail = (
            "the candidate's result differs from the expected results, but the configuration that gave an expected"
            " result now gives the same result as the candidate"
        )
        judged = replace(judged, outcome=FixtureOutcome.DIFFERENT, more=1, error=detail)
    return replace(judged, result=run.result.as_json()) if judged.outcome is FixtureOutcome.DIFFERENT else judged


def _compare(
    bundle: IncidentBundle,
    candidate: Side,
    baseline: Side,
    selected: Selected,
    limits: ReplayLimits | None,
    progress: Progress | None,
) -> Judgment:
    """Return the verdict of a comparison with a baseline. Raises Unsupported if the baseline cannot run."""
    found = find_differences(
        bundle,
        candidate,
        baseline,
        journal_lane=selected.journal_lane,
        last_n=selected.last_n,
        limits=limits,
        progress=progress,
    )
    return Judgment(FixtureOutcome(found.status), found.groups, found.more, found.records, found.work, found.error)
