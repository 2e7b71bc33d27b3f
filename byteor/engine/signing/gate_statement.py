"""The signed statement of why the replay gate let a deployment start, and the check whether the gate was open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from byteor.engine.canonical import Fields, Json, canonical, format_time, from_base64, sha256

from . import configuration_statement, test_result
from .configuration_statement import Verified
from .keys import KeySet
from .refusals import Refused, StatementCode
from .test_result import Difference, TestResult

PREDICATE_TYPE = "urn:byteor:gate:v1"

OFF, WARN, REQUIRE = "off", "warn", "require"
_IDS = ("org_id", "project_id", "environment_id", "deployment_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSetting:
    """The settings of the replay gate at the time of the request. ``replay_gate`` is off, warn or require."""

    replay_gate: str
    replay_gate_min_fixtures: int
    max_work_increase_percent: int | None

    @classmethod
    def from_document(cls, members: Fields) -> GateSetting:
        """Parse the settings. Raises ValueError."""
        return cls(
            replay_gate=members.constant("replay_gate", OFF, WARN, REQUIRE),
            replay_gate_min_fixtures=members.integer("replay_gate_min_fixtures"),
            max_work_increase_percent=None
            if members.member("max_work_increase_percent") is None
            else members.integer("max_work_increase_percent"),
        )

    def document(self) -> Json:
        """Return the JSON object."""
        return {
            "replay_gate": self.replay_gate,
            "replay_gate_min_fixtures": self.replay_gate_min_fixtures,
            "max_work_increase_percent": self.max_work_increase_percent,
        }


@dataclass(frozen=True, slots=True)
class GateOverride:
    """The reason why the gate must not block the deployment, and who gave this reason."""

    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceEntry:
    """An acceptance of differences. ``user_id`` is None for an API key."""

    acceptance_id: str
    accepted_by: str
    user_id: str | None
    reason: str
    accepted_at: datetime
    differences: frozenset[Difference]

    @classmethod
    def from_document(cls, members: Fields) -> AcceptanceEntry:
        """Parse an acceptance. Raises ValueError."""
        return cls(
            acceptance_id=members.text("acceptance_id"),
            accepted_by=members.text("accepted_by"),
            user_id=members.optional_text("user_id"),
            reason=members.any_text("reason"),
            accepted_at=members.time("accepted_at"),
            differences=frozenset(
                Difference(each.text("group"), None if each.member("baseline") is None else each.digest("baseline"))
                for each in map(Fields, members.items("differences"))
            ),
        )

    def document(self) -> Json:
        """Return the JSON object."""
        differences = sorted(self.differences, key=lambda each: (each.group, each.baseline or ""))
        return {
            "acceptance_id": self.acceptance_id,
            "accepted_by": self.accepted_by,
            "user_id": self.user_id,
            "reason": self.reason,
            "accepted_at": format_time(self.accepted_at),
            "differences": [each._asdict() for each in differences],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReference:
    """The test result that the gate used. ``test_result`` is the hash of the signed statement.

    The other values are taken from that statement. If another test result is presented, they show whether its engine,
    baselines or fixtures differ. ``engine`` is the engine's digest, or None if the regression did not start.
    ``baselines`` are config hashes, and ``fixtures`` is the hash of all fixtures.
    """

    test_result: str
    engine: str | None
    baselines: tuple[str, ...]
    fixtures: str
    verdicts: int

    @classmethod
    def of(cls, result: TestResult, payload_hash: str) -> ResultReference:
        """Return the reference to a test result. ``payload_hash`` is the hash of its signed statement."""
        return cls(
            test_result=payload_hash,
            engine=None if result.engine is None else result.engine.digest,
            baselines=tuple(each.config_hash for each in result.baselines),
            fixtures=result.fixtures_digest,
            verdicts=result.verdicts,
        )

    @classmethod
    def from_document(cls, members: Fields) -> ResultReference:
        """Parse a reference. Raises ValueError."""
        return cls(
            test_result=members.digest("test_result"),
            engine=None if members.member("engine") is None else members.digest("engine"),
            baselines=tuple(Fields({"baseline": each}).digest("baseline") for each in members.items("baselines")),
            fixtures=members.digest("fixtures"),
            verdicts=members.integer("verdicts"),
        )

    def document(self) -> Json:
        """Return the JSON object."""
        return {
            "test_result": self.test_result,
            "engine": self.engine,
            "baselines": list(self.baselines),
            "fixtures": self.fixtures,
            "verdicts": self.verdicts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStatement:
    """The state of a deployment's replay gate when the build started.

    ``requester_id`` is the person behind the request; None if unknown. If approvals are required, only acceptances by
    people count, and those of the requester only with ``allow_self_acceptance``. ``tested`` is None if there was no
    regression.
    """

    org_id: str
    project_id: str
    environment_id: str
    deployment_id: str
    spec_hash: str
    config_hash: str
    setting: GateSetting
    override: GateOverride | None
    acceptances: tuple[AcceptanceEntry, ...]
    requested_by: str
    requester_id: str | None
    approvals_required: bool
    allow_self_acceptance: bool
    signed_at: datetime
    tested: ResultReference | None = None

    @property
    def accepted(self) -> frozenset[Difference]:
        """The differences that are covered by acceptances that count for the deployment."""
        return frozenset().union(*(each.differences for each in self.acceptances if self.counts(each)))

    def counts(self, acceptance: AcceptanceEntry) -> bool:
        """Return whether an acceptance counts for the deployment."""
        if not self.approvals_required:
            return True
        if acceptance.user_id is None:
            return False
        return self.allow_self_acceptance or acceptance.user_id != self.requester_id

    @classmethod
    def from_document(cls, document: object, spec_hash: str, config_hash: str) -> GateStatement:
        """Parse a predicate about this configuration. Raises ValueError for any deviation from the format."""
        members = Fields(document)
        statement = cls(
            **{name: members.text(name) for name in _IDS},
            spec_hash=members.digest("spec_hash"),
            config_hash=members.digest("config_hash"),
            setting=GateSetting.from_document(members.fields("setting")),
            override=members.optional("override", lambda each: GateOverride(each.text("reason"), each.text("by"))),
            acceptances=tuple(
                AcceptanceEntry.from_document(each) for each in map(Fields, members.items("acceptances"))
            ),
            requested_by=members.text("requested_by"),
            requester_id=members.optional_text("requester_id"),
            approvals_required=members.flag("approvals_required"),
            allow_self_acceptance=members.flag("allow_self_acceptance"),
            signed_at=members.time("signed_at"),
            tested=members.optional("tested", ResultReference.from_document),
        )
        if (statement.spec_hash, statement.config_hash) != (spec_hash, config_hash):
            raise ValueError("its hashes differ from the subject")
        if canonical(statement.document()) != canonical(document):
            raise ValueError("it has an unknown member, or a value that is not in the expected form")
        return statement

    def document(self) -> Json:
        """Return the predicate."""
        return {
            **{name: getattr(self, name) for name in _IDS},
            "spec_hash": self.spec_hash,
            "config_hash": self.config_hash,
            "setting": self.setting.document(),
            "override": self.override and {"reason": self.override.reason, "by": self.override.by},
            "acceptances": [each.document() for each in self.acceptances],
            "requested_by": self.requested_by,
            "requester_id": self.requester_id,
            "approvals_required": self.approvals_required,
            "allow_self_acceptance": self.allow_self_acceptance,
            "signed_at": format_time(self.signed_at),
            "tested": self.tested and self.tested.document(),
        }


def sign(statement: GateStatement, private_key: bytes) -> Json:
    """Return a signed envelope around a gate statement."""
    return configuration_statement.sign(PREDICATE_TYPE, statement, private_key)


def sign_test(result: TestResult, accepted: frozenset[Difference], private_key: bytes) -> tuple[Json, ResultReference]:
    """Return the signed envelope of a test result, and the reference to it for the gate statement.

    The ``accepted`` differences of ``result`` are set here. Those that no test shows are ignored.
    """
    result = replace(result, accepted=accepted & result.shown)
    envelope = test_result.sign(result, private_key)
    payload = from_base64(Fields(envelope).text("payload"))
    return envelope, ResultReference.of(result, sha256(payload))


def verify(envelope: object, keyset: KeySet) -> Verified[GateStatement]:
    """Return the gate statement if a trusted key signed it. Raises Refused with a code ``gate.…`` otherwise."""
    return configuration_statement.verify("gate", PREDICATE_TYPE, envelope, keyset, GateStatement.from_document)


def check_reference(result: Verified[TestResult] | None, gate: GateStatement) -> None:
    """Check that the gate used this test result, and that both agree which of its differences are accepted.

    Raises Refused.
    """
    if gate.tested is None:
        if result is not None:
            raise Refused(StatementCode.TEST_RESULT, "the gate used no test result")
        return
    if result is None:
        raise Refused(StatementCode.MISSING, "the test result that the gate used is missing")
    tested = result.content
    if (tested.spec_hash, tested.config_hash) != (gate.spec_hash, gate.config_hash):
        raise Refused(StatementCode.SUBJECT, "the test result is about another configuration than the gate")
    found = ResultReference.of(tested, result.payload_hash)
    compared = (
        (StatementCode.ENGINE, found.engine == gate.tested.engine, "another engine replayed the fixtures"),
        (StatementCode.BASELINES, found.baselines == gate.tested.baselines, "it compares with other configurations"),
        (StatementCode.FIXTURES, found.fixtures == gate.tested.fixtures, "other fixtures were replayed"),
        (StatementCode.TEST_RESULT, found == gate.tested, "it is another signed statement"),
    )
    for code, is_equal, detail in compared:
        if not is_equal:
            raise Refused(code, f"this is not the test result that the gate used: {detail}")
    accepted = gate.accepted & tested.shown
    if missing := tested.accepted - accepted:
        detail = f"the test result says that {describe(missing)} was accepted"
        raise Refused(StatementCode.ACCEPTANCE, f"{detail}, but it is not covered by an acceptance that counts")
    if invented := accepted - tested.accepted:
        detail = f"the test result says that {describe(invented)} was not accepted, but an acceptance covers it"
        raise Refused(StatementCode.ACCEPTANCE, detail)


def describe(differences: Iterable[Difference]) -> str:
    """Return the first difference as text."""
    first = min(differences, key=lambda each: (each.group, each.baseline or ""))
    return f"the group {first.group} {describe_baseline(first.baseline)}"


def describe_baseline(baseline: str | None) -> str:
    """Return a phrase for what the candidate was compared with."""
    return "against recorded results" if baseline is None else f"against {baseline}"


def check_gate(result: TestResult | None, gate: GateStatement) -> None:
    """Check that the gate was open for the deployment. Raises Refused with the first reason why it was not.

    The gate is also open if it is not required, or if it is overridden.
    """
    setting = gate.setting
    if setting.replay_gate != REQUIRE or gate.override is not None:
        return
    if result is None or result.finished_at is None:
        raise Refused(StatementCode.UNFINISHED, "the gate requires a regression, and none was completed")
    outcomes = result.outcomes
    if failed := outcomes[test_result.FAILED] + outcomes[test_result.UNSTABLE]:
        tests = f"{len(result.tests):,} test{'' if len(result.tests) == 1 else 's'}"
        verb = "is" if failed == 1 else "are"
        raise Refused(StatementCode.FAILED, f"{failed:,} of {tests} failed or {verb} unstable")
    if unaccepted := result.shown - gate.accepted:
        raise Refused(StatementCode.UNACCEPTED, f"{describe(unaccepted)} is not covered by an acceptance that counts")
    if further := sum(each.further for each in result.tests):
        what = "difference is" if further == 1 else "differences are"
        raise Refused(StatementCode.UNACCEPTED, f"{further:,} {what} in no group and cannot be accepted")
    if any(each.outcome == test_result.DIFFERENT and not each.groups for each in result.tests):
        raise Refused(
            StatementCode.UNACCEPTED,
            "a test found differences, but names no group of differences that could be accepted",
        )
    if result.verdicts < setting.replay_gate_min_fixtures:
        has = f'{result.verdicts:,} verdict{"" if result.verdicts == 1 else "s"} other than "not tested"'
        detail = f"the test result has {has}, and the gate requires at least {setting.replay_gate_min_fixtures:,}"
        raise Refused(StatementCode.TOO_FEW_FIXTURES, detail)
    limit, candidate, baseline = setting.max_work_increase_percent, result.work_candidate, result.work_baseline
    if limit is not None and baseline and candidate * 100 > baseline * (100 + limit):
        detail = f"the work rose from {baseline:,} to {candidate:,}, and at most {limit}% more is permitted"
        raise Refused(StatementCode.WORK, detail)
