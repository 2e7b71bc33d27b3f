"""Plans a bisect: chooses the versions to replay next, and derives the outcome from the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from byteor.engine.replay.replay import ErrorCode


class Verdict(StrEnum):
    """The result of testing a version. ``UNTESTABLE``: its replay was impossible, or failed without a stage error."""

    GOOD = "good"
    BAD = "bad"
    UNTESTABLE = "untestable"


class BisectOutcome(StrEnum):
    """The outcome of a bisect.

    ``FOUND``: the first bad version is known. ``NO_CHANGE``: the tested versions begin and end with the same verdict,
    and no first bad version was found. ``INVERTED``: the first tested version is bad and the last is good.
    ``INCONCLUSIVE``: too few versions were tested to find the first bad version.
    """

    FOUND = "found"
    NO_CHANGE = "no_change"
    INVERTED = "inverted"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class BisectPlan:
    """The versions to replay next, concurrently. If there are none, the bisect is complete and has an ``outcome``.

    ``first_bad`` and ``last_good`` enclose the change, as far as known. Only an exhaustive bisect sets ``monotone``: it
    is false if a good version follows a bad one.
    """

    replay: tuple[str, ...] = ()
    outcome: BisectOutcome | None = None
    first_bad: str | None = None
    last_good: str | None = None
    monotone: bool | None = None


def max_replays(versions: int) -> int:
    """Return how many versions a non-exhaustive bisect replays at most. Untestable versions do not count."""
    return max(versions - 1, 0).bit_length() + 2


def plan_bisect(versions: Sequence[str], verdicts: Mapping[str, Verdict], *, exhaustive: bool = False) -> BisectPlan:
    """Plan the next step of a bisect over ordered versions, from the known verdicts.

    An ``exhaustive`` bisect replays all versions. Any other bisect starts with the first and the last version, and
    then always replays the middle of the remaining interval, in total at most ``max_replays`` versions. Untestable
    versions are skipped and do not count as replayed.
    """
    if exhaustive:
        if unknown := tuple(version for version in versions if version not in verdicts):
            return BisectPlan(unknown)
        return _judge_all(versions, verdicts)
    usable = [version for version in versions if verdicts.get(version) is not Verdict.UNTESTABLE]
    if len(usable) < 2:
        return BisectPlan(outcome=BisectOutcome.INCONCLUSIVE)
    first, last = usable[0], usable[-1]
    if ends := tuple(version for version in (first, last) if version not in verdicts):
        return _within_budget(versions, verdicts, ends, None, None)
    if verdicts[first] is verdicts[last]:
        return BisectPlan(outcome=BisectOutcome.NO_CHANGE)
    if verdicts[first] is Verdict.BAD:
        return BisectPlan(outcome=BisectOutcome.INVERTED)
    good, bad = 0, len(usable) - 1
    while True:  # narrow the interval as far as the known verdicts permit
        between = [at for at in range(good + 1, bad) if usable[at] in verdicts]
        if not between:
            break
        at = min(between, key=lambda each: abs(2 * each - good - bad))
        good, bad = (at, bad) if verdicts[usable[at]] is Verdict.GOOD else (good, at)
    if bad - good > 1:
        middle = usable[(good + bad) // 2]
        return _within_budget(versions, verdicts, (middle,), usable[bad], usable[good])
    return BisectPlan(
        outcome=_certain(versions, usable[good], usable[bad]), first_bad=usable[bad], last_good=usable[good]
    )


def _within_budget(
    versions: Sequence[str],
    verdicts: Mapping[str, Verdict],
    candidates: tuple[str, ...],
    first_bad: str | None,
    last_good: str | None,
) -> BisectPlan:
    replayed = sum(verdict is not Verdict.UNTESTABLE for verdict in verdicts.values())
    if replayed + len(candidates) > max_replays(len(versions)):
        return BisectPlan(outcome=BisectOutcome.INCONCLUSIVE, first_bad=first_bad, last_good=last_good)
    return BisectPlan(candidates, first_bad=first_bad, last_good=last_good)


def _certain(versions: Sequence[str], good: str, bad: str) -> BisectOutcome:
    """Return FOUND if the versions are adjacent.

    Otherwise, return INCONCLUSIVE, because an untestable version between the two may be the first bad one.
    """
    is_next = versions.index(bad) == versions.index(good) + 1
    return BisectOutcome.FOUND if is_next else BisectOutcome.INCONCLUSIVE


def _judge_all(versions: Sequence[str], verdicts: Mapping[str, Verdict]) -> BisectPlan:
    tested = [version for version in versions if verdicts[version] is not Verdict.UNTESTABLE]
    if len(tested) < 2:
        return BisectPlan(outcome=BisectOutcome.INCONCLUSIVE)
    is_bad = [verdicts[version] is Verdict.BAD for version in tested]
    monotone = is_bad == sorted(is_bad)
    changes = [at for at in range(1, len(tested)) if is_bad[at] and not is_bad[at - 1]]
    if is_bad[0] and not is_bad[-1]:
        return BisectPlan(outcome=BisectOutcome.INVERTED, monotone=False)
    if not changes or is_bad[0]:
        return BisectPlan(outcome=BisectOutcome.NO_CHANGE, monotone=monotone)
    good, bad = tested[changes[0] - 1], tested[changes[0]]
    return BisectPlan(outcome=_certain(versions, good, bad), first_bad=bad, last_good=good, monotone=monotone)


class Predicate(StrEnum):
    """The condition that makes a version bad."""

    DIVERGES = "diverges"
    FAILS = "fails"
    OUTPUT_DIFFERS_FROM = "output_differs_from"


def judge(
    predicate: Predicate, result: Mapping[str, Any], error_code: str | None, other: Mapping[str, Any] | None = None
) -> Verdict:
    """Return the verdict on a version from its replay. ``OUTPUT_DIFFERS_FROM`` compares the output with ``other``.

    If a replay failed for a reason other than a stage error, the version is untestable. A replay counts as divergent if
    its output diverges, or if a stage error stops it and it does not reproduce a recorded stop. If ``other`` is None,
    the output counts as different.
    """
    if error_code not in (None, ErrorCode.STAGE_ERROR):
        return Verdict.UNTESTABLE
    is_stopped = error_code is not None
    if predicate is Predicate.FAILS:
        is_bad = is_stopped
    elif predicate is Predicate.DIVERGES:
        is_bad = result["divergence"] is not None or (is_stopped and result["reproduced"] is not True)
    else:
        is_bad = other is None or result["egress"] != other["egress"]
    return Verdict.BAD if is_bad else Verdict.GOOD
