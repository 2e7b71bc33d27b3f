"""Verifies the signed statements of how a configuration was tested and why the replay gate was open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from byteor.engine.canonical import Json, format_time, parse_object
from byteor.engine.counted import count_of
from byteor.engine.signing import gate_statement, test_result
from byteor.engine.signing.approval_record import ApprovalRecord
from byteor.engine.signing.bundle import Manifest
from byteor.engine.signing.configuration_statement import Verified
from byteor.engine.signing.gate_statement import AcceptanceEntry, GateStatement, describe_baseline
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import Refused, StatementCode
from byteor.engine.signing.test_result import Difference, TestResult

from .files import APPROVAL_RECORD, DEPLOYMENT, GATE, TEST_RESULT
from .trust import Signature, Trust

_IDS = ("org_id", "project_id", "environment_id", "deployment_id")
_MAX_SHOWN = 5  # groups in one line


@dataclass(frozen=True, slots=True)
class Statements:
    """The verified statements. ``result`` is None if there was no regression."""

    result: Verified[TestResult] | None
    gate: Verified[GateStatement]

    @property
    def test_result(self) -> TestResult | None:
        """The test result. None if there was no regression."""
        return None if self.result is None else self.result.content

    @property
    def signatures(self) -> Iterator[Signature]:
        """The verified signatures, and what each covers."""
        if self.result is not None:
            covered = "the spec, the configuration and its tests: engine, fixtures, compared configurations, results"
            yield Signature(TEST_RESULT, self.result.kid, covered)
        covered = "the deployment, the replay gate's settings and override, and the acceptances when the build started"
        yield Signature(GATE, self.gate.kid, covered)


def read(data: Mapping[str, bytes], trust: Trust, manifest: Manifest) -> Statements | None:
    """Return the statements about this deployment. ``data`` is the content of the files that exist, by name.

    Returns None without any file. Raises Refused if a statement is invalid or does not belong to the deployment, if
    only one of two statements is missing, or if they do not match. Raises Unproven if the caller named only other key
    ids. Does not check whether both files were removed, or whether the gate was open.
    """
    if not data:
        return None
    if GATE not in data:
        raise Refused(StatementCode.MISSING, f"{GATE} is missing, although there is a {TEST_RESULT}")
    result = None
    if TEST_RESULT in data:
        result = _verify(TEST_RESULT, data[TEST_RESULT], trust, test_result.verify, StatementCode.TEST_RESULT_MALFORMED)
        _check_subject(TEST_RESULT, result.content, manifest)
    gate = _verify(GATE, data[GATE], trust, gate_statement.verify, StatementCode.GATE_MALFORMED)
    _check_subject(GATE, gate.content, manifest)
    for name in _IDS:
        if getattr(gate.content, name) != getattr(manifest, name):
            stated, expected = getattr(gate.content, name), getattr(manifest, name)
            detail = f"{GATE}: {name} is {stated}, but the manifest has {expected}"
            raise Refused(StatementCode.DEPLOYMENT, detail)
    gate_statement.check_reference(result, gate.content)
    return Statements(result, gate)


def _verify[T](
    name: str,
    data: bytes,
    trust: Trust,
    verify: Callable[[object, KeySet], Verified[T]],
    malformed: StatementCode,
) -> Verified[T]:
    try:
        envelope = parse_object(data)
    except ValueError as error:
        raise Refused(malformed, f"{name}: {error}") from error
    try:
        verified = verify(envelope, trust.keyset)
    except Refused as refused:
        raise Refused(refused.code, f"{name}: {refused.detail}") from refused
    trust.check(verified.kid)
    return verified


def _check_subject(name: str, content: TestResult | GateStatement, manifest: Manifest) -> None:
    if (content.spec_hash, content.config_hash) != (manifest.spec_hash, manifest.config_hash):
        subject = f"the spec {content.spec_hash} with the configuration {content.config_hash}"
        raise Refused(StatementCode.SUBJECT, f"{name}: the statement is about {subject}, not about those of the bundle")


def check(
    statements: Statements | None,
    record: ApprovalRecord | None,
    unsigned: Json,
    *,
    is_export: bool,
) -> None:
    """Check that the gate was open, and that its override is the one that the server recorded. Raises Refused.

    The override is compared with the signed approval record. If there is no record, it is compared with ``unsigned``,
    the unsigned fields of deployment.json, but only if the files are from an export.
    """
    if statements is None:
        return
    given = statements.gate.content.override
    place, override = DEPLOYMENT, unsigned.get("replay_gate_override")
    if record is not None:
        place, override = APPROVAL_RECORD, record.bound.get("override_replay_gate")
    if (is_export or record is not None) and (override or None) != (given and given.reason):
        detail = f"{GATE}: the override {_quote(given and given.reason)} differs from that in {place}: "
        raise Refused(StatementCode.OVERRIDE, f"{detail}{_quote(override)}")
    gate_statement.check_gate(statements.test_result, statements.gate.content)


def check_listed(found: Mapping[str, str], record: ApprovalRecord | None, unsigned: Json, *, is_export: bool) -> bool:
    """Check that the evidence has exactly the statements that the server listed, and return whether that is proven.

    ``found`` has the name of each statement by its hash. The list is in the signed approval record or, if there is none
    or it has no list, in ``unsigned``, the unsigned fields of deployment.json. Without a list, nothing is checked. If
    the files are not from an export, all statements may be missing. Raises Refused for any other difference from the
    list. Returns True only if a signed record has the list, and none of the listed statements is missing.
    """
    place, listed = DEPLOYMENT, unsigned.get("attestations")
    if record is not None and "attestations" in record.shown:
        place, listed = APPROVAL_RECORD, record.shown["attestations"]
    if listed is None:
        return False
    expected = listed if isinstance(listed, list) else [listed]
    for digest, name in found.items():
        if digest not in expected:
            raise Refused(StatementCode.OTHER, f"{name}: {place} does not list this statement, {digest}")
    missing = [digest for digest in expected if digest not in found]
    if missing and (is_export or found):
        raise Refused(StatementCode.MISSING, f"the statement {missing[0]} that {place} lists is missing")
    return not missing and record is not None and "attestations" in record.shown


def _quote(text: object) -> str:
    return f'"{text}"' if text else "(none)"


def lines(statements: Statements | None) -> Iterator[tuple[str, str]]:
    """Yield the lines of the printed proof about the tests, the acceptances and the gate."""
    if statements is None:
        yield "NOT TESTED", "nothing in the evidence says how the configuration was tested"
        return
    result, gate = statements.test_result, statements.gate.content
    yield from _test_lines(result)
    if result is not None:
        yield from _unaccepted_lines(result, gate)
    for acceptance in gate.acceptances:
        yield from _acceptance_lines(acceptance, is_counted=gate.counts(acceptance))
    if gate.override is not None:
        yield "override", f"by {gate.override.by}: {gate.override.reason}"
    yield "gate", _describe_setting(gate)


def _test_lines(result: TestResult | None) -> Iterator[tuple[str, str]]:
    if result is None:
        yield "NOT TESTED", "nothing was tested: there was no regression"
        return
    if result.is_vacuous:
        reason = f"{count_of(len(result.tests), 'test')} could not run" if result.tests else "there are no results"
        yield "NOT TESTED", f"nothing was tested: {reason}"
    else:
        counts = ", ".join(
            f"{result.outcomes[each]:,} {each.replace('_', ' ')}"
            for each in test_result.OUTCOMES
            if result.outcomes[each]
        )
        yield "tested", _describe_tests(result, counts)
    if result.finished_at is None:
        yield "NOT TESTED", f"the regression {result.regression_id} had not been completed when the build started"
    for baseline in result.baselines:
        ran = f"{baseline.agents:,} of {count_of(baseline.of, 'agent')} ran"
        yield "compared with", f"{baseline.config_hash}, which {ran}"
    for untested in result.not_tested:
        yield "NOT TESTED", f"a comparison with {untested.config_hash}, which {count_of(untested.agents, 'agent')} ran"


def _describe_tests(result: TestResult, counts: str) -> str:
    golden = sum(each.baseline is None for each in result.tests)
    against = ["recorded results"] if golden else []
    if result.baselines:
        against.append(f"{count_of(len(result.baselines), 'configuration')} that agents ran")
    described = f"{count_of(result.verdicts, 'verdict')} of {count_of(len(result.fixtures), 'fixture')} ({counts})"
    engine = "an unknown engine"
    if result.engine is not None:
        engine = f"engine {result.engine.version}, {result.engine.digest}"
    return f"{described} against {' and '.join(against) or 'nothing'}; {engine}"


def _unaccepted_lines(result: TestResult, gate: GateStatement) -> Iterator[tuple[str, str]]:
    if unaccepted := result.shown - gate.accepted:
        yield "NOT ACCEPTED", "; ".join(_describe_groups(unaccepted))
    if further := sum(each.further for each in result.tests):
        yield "NOT ACCEPTED", f"{count_of(further, 'further difference')} in no group"


def _acceptance_lines(acceptance: AcceptanceEntry, *, is_counted: bool) -> Iterator[tuple[str, str]]:
    by = f"by {acceptance.accepted_by} at {format_time(acceptance.accepted_at)}: {acceptance.reason}"
    for described in _describe_groups(acceptance.differences):
        yield "accepted", f"{described} {by}" if is_counted else f"(does not count) {described} {by}"


def _describe_groups(differences: Iterable[Difference]) -> Iterator[str]:
    """Yield a text for each baseline, with the ids of the first groups."""
    ordered = sorted(differences, key=lambda each: (each.baseline or "", each.group))
    for baseline, found in groupby(ordered, key=lambda each: each.baseline):
        groups = [each.group for each in found]
        rest = f" and {len(groups) - _MAX_SHOWN:,} more" if len(groups) > _MAX_SHOWN else ""
        noun = "group" if len(groups) == 1 else "groups"
        yield f"{noun} {', '.join(groups[:_MAX_SHOWN])}{rest} {describe_baseline(baseline)}"


def _describe_setting(gate: GateStatement) -> str:
    setting = gate.setting
    if setting.replay_gate == gate_statement.OFF:
        return gate_statement.OFF
    parts = [setting.replay_gate]
    if setting.replay_gate_min_fixtures:
        parts.append(f"at least {count_of(setting.replay_gate_min_fixtures, 'verdict')}")
    if setting.max_work_increase_percent is not None:
        parts.append(f"at most {setting.max_work_increase_percent}% more work")
    if gate.approvals_required:
        who = "including the requester" if gate.allow_self_acceptance else "other than the requester"
        parts.append(f"acceptances only by people {who}")
    return ", ".join(parts)
