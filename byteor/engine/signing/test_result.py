"""The signed statement of how a configuration was tested before its deployment was built.

The statement is an in-toto test result. A regression that was not completed has no tests. In a completed regression, a
fixture with a recorded result is one test, and any other fixture is one test for each configuration in ``baselines``.
What the standard members of a test result cannot express is in the annotations of its ``configuration``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from byteor.engine.canonical import Fields, Json, canonical, format_time, sha256

from . import configuration_statement
from .configuration_statement import Verified
from .keys import KeySet

PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"

EQUAL, DIFFERENT, FAILED, UNSTABLE, NOT_TESTED = "equal", "different", "failed", "unstable", "not_tested"
OUTCOMES = (EQUAL, DIFFERENT, FAILED, UNSTABLE, NOT_TESTED)
_PASSED, _WARNED, _FAILED = "passedTests", "warnedTests", "failedTests"
_REGRESSION_URI = "urn:byteor:regression:"
_GROUP = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Difference(NamedTuple):
    """A group of differences. ``baseline`` is a config hash, or None for recorded results."""

    group: str
    baseline: str | None


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """The engine that replayed the fixtures. ``digest`` also covers the op packages that the configurations use."""

    digest: str
    version: str

    def document(self) -> Json:
        """Return the resource descriptor."""
        annotations: Json = {"kind": "engine", "version": self.version}
        return {"name": "engine", "digest": _bare(self.digest), "annotations": annotations}


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """A configuration to compare the candidate with.

    When the regression was requested, ``agents`` agents ran this configuration, and ``of`` agents ran the pipeline. The
    agents are those of the deployment's target, or of the whole environment if the regression was requested separately.
    """

    config_hash: str
    agents: int
    of: int

    def document(self) -> Json:
        """Return the resource descriptor."""
        annotations: Json = {"kind": "baseline", "agents": self.agents, "of": self.of}
        return {"name": self.config_hash, "digest": _bare(self.config_hash), "annotations": annotations}


@dataclass(frozen=True, slots=True)
class UntestedEntry:
    """A configuration that ``agents`` agents ran, and with which the candidate was not compared."""

    config_hash: str
    agents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FixtureEntry:
    """A fixture. ``content_hash`` is that of its capture. If it is ``golden``, it has a recorded result."""

    fixture_id: str
    name: str
    content_hash: str
    journal_lane: str | None
    last_n: int | None
    golden: bool

    def document(self) -> Json:
        """Return the resource descriptor."""
        annotations: Json = {
            "kind": "fixture",
            "fixture_id": self.fixture_id,
            "journal_lane": self.journal_lane,
            "last_n": self.last_n,
            "golden": self.golden,
        }
        return {"name": self.name, "digest": _bare(self.content_hash), "annotations": annotations}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeEntry:
    """One test. ``outcome`` is one of ``OUTCOMES``. ``baseline`` is a config hash, or None for a recorded result.

    ``groups`` are the sorted ids of the groups of differences. ``further`` is the number of differences in no group.
    """

    fixture_id: str
    baseline: str | None
    outcome: str
    groups: tuple[str, ...] = ()
    further: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(sorted(set(self.groups))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The results of a regression.

    ``finished_at`` is None if the regression was not completed. ``engine`` is None if the regression did not start.
    ``not_tested`` are configurations that agents ran, and with which the candidate was not compared. ``accepted`` are
    the groups of differences that acceptances cover; those that no test shows are ignored. ``work_candidate`` and
    ``work_baseline`` are the work of both sides on the same records.

    Raises ValueError if a test has an unknown fixture, baseline or outcome, if the id of a group is malformed, or if a
    test, fixture or baseline is listed twice.
    """

    spec_hash: str
    config_hash: str
    regression_id: str
    finished_at: datetime | None
    engine: EngineEntry | None
    fixtures: tuple[FixtureEntry, ...]
    baselines: tuple[BaselineEntry, ...]
    not_tested: tuple[UntestedEntry, ...]
    tests: tuple[OutcomeEntry, ...]
    work_candidate: int
    work_baseline: int
    signed_at: datetime
    accepted: frozenset[Difference] = frozenset()

    def __post_init__(self) -> None:
        baselines = {each.config_hash for each in self.baselines} | {None}
        names = self._names()
        if any(each.fixture_id not in names or each.baseline not in baselines for each in self.tests):
            raise ValueError("a test names a fixture or a baseline that is not listed")
        tests = {(names[each.fixture_id], each.baseline) for each in self.tests}
        if len(tests) != len(self.tests) or len(baselines) != len(self.baselines) + 1:
            raise ValueError("a test or a baseline is listed twice")
        if len(names) != len(self.fixtures):
            raise ValueError("a fixture is listed twice")
        if any(each.outcome not in OUTCOMES for each in self.tests):
            raise ValueError("a test has an unknown outcome")
        if not all(_GROUP.fullmatch(group) for groups in {each.groups for each in self.tests} for group in groups):
            raise ValueError("the id of a group is not a SHA-256 in hexadecimal")

    @property
    def shown(self) -> frozenset[Difference]:
        """All groups of differences that the tests show."""
        # Many tests show the same groups. Expand each combination once.
        combinations = {(each.groups, each.baseline) for each in self.tests}
        return frozenset(Difference(group, baseline) for groups, baseline in combinations for group in groups)

    @property
    def outcomes(self) -> Counter[str]:
        """The number of tests by outcome."""
        return Counter(each.outcome for each in self.tests)

    @property
    def verdicts(self) -> int:
        """The number of tests with an outcome other than ``not_tested``."""
        return len(self.tests) - self.outcomes[NOT_TESTED]

    @property
    def is_vacuous(self) -> bool:
        """Whether nothing was tested."""
        return self.verdicts == 0

    @property
    def fixtures_digest(self) -> str:
        """The hash of all fixtures."""
        return sha256(canonical([each.document() for each in self.fixtures]))

    @classmethod
    def from_document(cls, document: object, spec_hash: str, config_hash: str) -> TestResult:
        """Parse a predicate. Raises ValueError for any deviation from the format."""
        entries = _Entries(Fields(document).items("configuration"))
        regression = entries.regression.fields("annotations")
        groups = tuple(str(group) for group in regression.items("groups"))
        sets = tuple(_read_set(groups, each) for each in regression.items("group_sets"))
        hashes = tuple(each.config_hash for each in entries.baselines)
        work = regression.fields("work")
        result = cls(
            spec_hash=spec_hash,
            config_hash=config_hash,
            regression_id=entries.regression.text("uri").removeprefix(_REGRESSION_URI),
            finished_at=regression.optional_time("finished_at"),
            engine=entries.engine,
            fixtures=entries.fixtures,
            baselines=entries.baselines,
            not_tested=tuple(
                UntestedEntry(each.digest("config_hash"), each.integer("agents"))
                for each in map(Fields, regression.items("not_tested"))
            ),
            tests=tuple(
                OutcomeEntry(
                    fixture_id=_item(entries.fixtures, each.member("fixture")).fixture_id,
                    baseline=_optional_item(hashes, each.member("baseline")),
                    outcome=each.constant("outcome", *OUTCOMES),
                    groups=_optional_item(sets, each.member("groups")) or (),
                    further=each.integer("further"),
                )
                for each in map(Fields, regression.items("tests"))
            ),
            work_candidate=work.integer("candidate"),
            work_baseline=work.integer("baseline"),
            signed_at=regression.time("signed_at"),
            accepted=frozenset(
                Difference(_item(groups, each.member("group")), _optional_item(hashes, each.member("baseline")))
                for each in map(Fields, regression.items("accepted"))
            ),
        )
        if canonical(result.document()) != canonical(document):
            raise ValueError(
                "it has an unknown member, a value that is not in the expected form, or a member that contradicts the"
                " tests"
            )
        return result

    def document(self) -> Json:
        """Return the predicate."""
        names, accepted = self._names(), self._accepted_combinations()
        sorted_tests: dict[str, list[str]] = {_PASSED: [], _WARNED: [], _FAILED: []}
        for each in self.tests:
            is_accepted = not each.further and (each.groups, each.baseline) in accepted
            listed = sorted_tests[_list_of(each.outcome, is_accepted=is_accepted)]
            listed.append(_test_name(names[each.fixture_id], each.baseline))
        result = "FAILED" if sorted_tests[_FAILED] else "PASSED"
        if result == "PASSED" and (sorted_tests[_WARNED] or self.is_vacuous):
            result = "WARNED"
        described = [self._describe_regression()]
        described += [] if self.engine is None else [self.engine.document()]
        described += [each.document() for each in self.baselines]
        described += [each.document() for each in self.fixtures]
        return {"result": result, "configuration": described, **sorted_tests}

    def _names(self) -> dict[str, str]:
        return {each.fixture_id: each.name for each in self.fixtures}

    def _accepted_combinations(self) -> set[tuple[tuple[str, ...], str | None]]:
        """Return the combinations of groups and a baseline that some test shows and that are accepted as a whole."""
        combinations = {(each.groups, each.baseline) for each in self.tests if each.groups}
        return {
            (groups, baseline)
            for groups, baseline in combinations
            if all(Difference(group, baseline) in self.accepted for group in groups)
        }

    def _describe_regression(self) -> Json:
        """Return the resource descriptor of the regression.

        Groups, and sets of groups, are listed once, and named by their index. A set is a hexadecimal number, in which
        the bit with the value 2**i stands for the group with the index i.
        """
        shown = self.shown
        groups = _indexed(sorted({each.group for each in shown}))
        sets = _indexed(sorted({each.groups for each in self.tests if each.groups}))
        fixtures = _indexed(each.fixture_id for each in self.fixtures)
        baselines: dict[str | None, int | None] = {None: None, **_indexed(each.config_hash for each in self.baselines)}
        accepted = sorted(shown & self.accepted, key=lambda each: (each.group, each.baseline or ""))
        annotations: Json = {
            "kind": "regression",
            "signed_at": format_time(self.signed_at),
            "finished_at": None if self.finished_at is None else format_time(self.finished_at),
            "vacuous": self.is_vacuous,
            "work": {"candidate": self.work_candidate, "baseline": self.work_baseline},
            "not_tested": [{"config_hash": each.config_hash, "agents": each.agents} for each in self.not_tested],
            "groups": list(groups),
            "group_sets": [f"{sum(1 << groups[group] for group in each):x}" for each in sets],
            "accepted": [{"group": groups[each.group], "baseline": baselines[each.baseline]} for each in accepted],
            "tests": [
                {
                    "fixture": fixtures[each.fixture_id],
                    "baseline": baselines[each.baseline],
                    "outcome": each.outcome,
                    "groups": sets[each.groups] if each.groups else None,
                    "further": each.further,
                }
                for each in self.tests
            ],
        }
        return {"name": "regression", "uri": f"{_REGRESSION_URI}{self.regression_id}", "annotations": annotations}


def sign(result: TestResult, private_key: bytes) -> Json:
    """Return a signed envelope around a test result."""
    return configuration_statement.sign(PREDICATE_TYPE, result, private_key)


def verify(envelope: object, keyset: KeySet) -> Verified[TestResult]:
    """Return the test result if a trusted key signed it. Raises Refused with a code ``test_result.…`` otherwise."""
    return configuration_statement.verify("test_result", PREDICATE_TYPE, envelope, keyset, TestResult.from_document)


class _Entries:
    """The parsed resource descriptors of a test result's configuration."""

    def __init__(self, items: Sequence[object]) -> None:
        kinds: dict[str, list[Fields]] = {"regression": [], "engine": [], "baseline": [], "fixture": []}
        for item in map(Fields, items):
            kinds[item.fields("annotations").constant("kind", *kinds)].append(item)
        if len(kinds["regression"]) != 1 or len(kinds["engine"]) > 1:
            raise ValueError("the configuration must have one regression and at most one engine")
        self.regression = kinds["regression"][0]
        self.engine = next((EngineEntry(_digest(each), _note(each).text("version")) for each in kinds["engine"]), None)
        self.baselines = tuple(
            BaselineEntry(_digest(each), _note(each).integer("agents"), _note(each).integer("of"))
            for each in kinds["baseline"]
        )
        self.fixtures = tuple(map(_read_fixture, kinds["fixture"]))


def _read_fixture(members: Fields) -> FixtureEntry:
    annotations = _note(members)
    return FixtureEntry(
        fixture_id=annotations.text("fixture_id"),
        name=members.text("name"),
        content_hash=_digest(members),
        journal_lane=annotations.optional_text("journal_lane"),
        last_n=None if annotations.member("last_n") is None else annotations.integer("last_n"),
        golden=annotations.flag("golden"),
    )


def _read_set(groups: Sequence[str], text: object) -> tuple[str, ...]:
    bits = int(text, 16) if isinstance(text, str) else 0
    if not 0 < bits < 1 << len(groups):
        raise ValueError(
            "a set of groups is empty, is not a hexadecimal number, or contains a group that is not listed"
        )
    return tuple(group for index, group in enumerate(groups) if bits >> index & 1)


def _note(members: Fields) -> Fields:
    return members.fields("annotations")


def _bare(digest: str) -> Json:
    return {"sha256": digest.removeprefix("sha256:")}


def _digest(members: Fields) -> str:
    digest = f"sha256:{members.fields('digest').text('sha256')}"
    return Fields({"digest": digest}).digest("digest")


def _list_of(outcome: str, *, is_accepted: bool) -> str:
    if outcome == EQUAL:
        return _PASSED
    is_warning = outcome == NOT_TESTED or (outcome == DIFFERENT and is_accepted)
    return _WARNED if is_warning else _FAILED


def _test_name(fixture: str, baseline: str | None) -> str:
    return f"{fixture} golden" if baseline is None else f"{fixture} against {baseline}"


def _indexed[T](items: Iterable[T]) -> dict[T, int]:
    return {item: index for index, item in enumerate(items)}


def _item[T](items: Sequence[T], index: object) -> T:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
        raise ValueError(f"{index!r} is not the index of a listed item")
    return items[index]


def _optional_item[T](items: Sequence[T], index: object) -> T | None:
    return None if index is None else _item(items, index)
