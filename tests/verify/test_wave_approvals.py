"""Tests of evidence with the decisions on waves, and of forged decisions.

The forger may have every statement that the organization signed. Some forgeries are statements that only the server
could have signed, because the verifier must not rely on the server's checks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import dsse, keys, wave_statement
from byteor.engine.signing.approval_record import Decision
from byteor.engine.signing.wave_statement import WaveStatement
from byteor.engine.wave_hold import FailureCount, WaveReport
from tests.engine.signing.conftest import World
from tests.verify.conftest import Files, Verifier, export, signed_record
from tests.verify.exports import KID, without

FILE = "wave-approvals.json"
RETIRED = keys.kid(keys.public_key(World().retired))
HOLDS = [None, "approval", None, "approval"]
GRACE, ADA, BOB, EVE = (f"{name}@example.com" for name in ("grace", "ada", "bob", "eve"))
PEOPLE = {GRACE: "user-4", ADA: "user-1", BOB: "user-2", EVE: "user-3"}  # Bob requested the deployment
SECOND = datetime(2026, 10, 20, 9, tzinfo=UTC)  # when the second wave was approved
FOURTH = datetime(2026, 10, 20, 10, tzinfo=UTC)

type Forge = Callable[[World, Files], Files]


def decision(by: str, at: datetime = SECOND, **changes: Any) -> Decision:
    return Decision(
        user_id=PEOPLE[by], decided_by=by, decided_at=at - timedelta(minutes=1),
        **{"decision": "approve", "comment": "", **changes},
    )  # fmt: skip


def report_of(bundle_hash: str, wave: int, **progress: int) -> WaveReport:
    return WaveReport(
        deployment_id="deployment-1", bundle_hash=bundle_hash, wave=wave, progress=progress or {"active": 30},
        failures=(),
    )  # fmt: skip


def wave(bundle_hash: str, **changes: Any) -> WaveStatement:
    """Return a statement. By default, Grace, one of two reviewers, approved the second wave."""
    report = changes.get("report") or report_of(bundle_hash, changes.get("wave", 1))
    fields: dict[str, Any] = {
        "bundle_hash": bundle_hash, "org_id": "org-1", "project_id": "project-1", "environment_id": "environment-1",
        "deployment_id": "deployment-1", "approval_id": "approval-2", "number": 1, "previous": None, "wave": 1,
        "report": report, "digest": report.digest, "status": "approved", "required_approvals": 1,
        "allow_self_approval": False, "reviewers": ("user-1", "user-4"), "requester_id": "user-2",
        "requested_by": BOB, "decisions": (decision(GRACE),), "signed_at": SECOND,
    }  # fmt: skip
    return WaveStatement(**fields | changes)


def chained(*statements: WaveStatement, key: bytes = World().active) -> list[Any]:
    """Return the signed envelopes of statements, each naming the one before it."""
    envelopes: list[Any] = []
    previous = None
    for number, statement in enumerate(statements, 1):
        envelopes.append(wave_statement.sign(replace(statement, number=number, previous=previous), key))
        previous = sha256(base64.b64decode(envelopes[-1]["payload"]))
    return envelopes


def denied(bundle_hash: str, **changes: Any) -> WaveStatement:
    """Return a statement. By default, Ada denied the fourth wave after two agents of the earlier waves had failed."""
    failures = (FailureCount("reported", "cannot open port <number>", 2),)
    report = replace(report_of(bundle_hash, 3, active=118, failed=2), failures=failures)
    fields: dict[str, Any] = {
        "approval_id": "approval-3", "wave": 3, "report": report, "status": "denied", "signed_at": FOURTH,
        "decisions": (decision(ADA, FOURTH, decision="deny", comment="Two failed."),),
    }  # fmt: skip
    return wave(bundle_hash, **fields | changes)


def bundle_hash_of(makers: World) -> str:
    return makers.bundle(approval=makers.credential()).bundle_hash


def genuine(makers: World) -> list[Any]:
    """Return the envelopes of both statements of the sample deployment."""
    found = bundle_hash_of(makers)
    return chained(wave(found), denied(found))


def hashes(envelopes: list[Any]) -> list[str]:
    return [sha256(canonical(each)) for each in envelopes]


def bound(makers: World, **values: Any) -> dict[str, Any]:
    return {
        "spec_hash": sha256(makers.spec_kv), "config_hash": makers.config_hash, "reviewers": ["user-1", "user-4"],
        **values,
    }  # fmt: skip


def approved_with(makers: World, envelopes: list[Any], **record: Any) -> Files:
    """Return an approved export with these statements. By default, the signed record lists them and the holds."""
    strategy = {"kind": "waves", "percents": [5, 25, 50, 100], "holds": HOLDS}
    about = bound(makers, strategy=strategy, start_at="2026-10-20T08:30:00Z")
    signed = {"bound": about, "shown": {"agents": 600, "attestations": hashes(envelopes)}} | record
    files = export(makers, makers.bundle(approval=makers.credential()), approval=makers.credential(), record=signed)
    return {**files, FILE: canonical(envelopes)}


def unapproved_with(makers: World, make: Callable[[str], list[Any]], **manifest: Any) -> Files:
    """Return an export without an approval, whose unsigned deployment.json lists these statements."""
    built = makers.bundle(approved_at=None, **manifest)
    envelopes = make(built.bundle_hash)
    return {**export(makers, built, attestations=hashes(envelopes)), FILE: canonical(envelopes)}


def facts(verify: Verifier, *labels: str) -> list[str]:
    """Return the texts of the printed lines with these labels."""
    return [line[16:] for line in verify.output.splitlines() if line[2:15].strip() in labels]


# -- what is proven ---------------------------------------------------------------------------------------------------


def test_proof_shows_decisions_on_waves_and_reports_of_earlier_waves(makers: World, verify: Verifier) -> None:
    files = approved_with(makers, genuine(makers))

    assert verify(files, "--trust", KID) == 0

    assert facts(
        verify, "wave approval", "on the wave", "NOT APPROVED", "NOT COVERED", "reviewers", "rules", "hold"
    ) == [
        "Wave 2 was approved by grace@example.com at 2026-10-20T09:00:00Z. Wave 1: 30 agents (30 active).",
        "approve by grace@example.com at 2026-10-20T08:59:00Z",
        "Wave 4 was denied by ada@example.com at 2026-10-20T10:00:00Z. Waves 1 to 3: 120 agents (118 active, "
        "2 failed). 2 agents failed (reported): cannot open port <number>.",
        "deny by ada@example.com at 2026-10-20T09:59:00Z: Two failed.",
        "wave 4: approval.json requires an approval before this wave; the wave had not been started at the time of the "
        "export, or had no available agents",
    ]
    result = verify.result(files, "--trust", KID)
    payloads = [json.loads(base64.b64decode(each["payload"])) for each in json.loads(files[FILE])]
    assert result["wave_approvals"] == [each["predicate"] for each in payloads]
    assert payloads[1]["predicateType"] == "urn:byteor:wave-approval:v1"
    assert payloads[1]["subject"] == [
        {"name": "deploy-bundle.tar", "digest": {"sha256": result["bundle_hash"].removeprefix("sha256:")}}
    ]
    document = json.dumps(payloads[1]["predicate"]["report"], sort_keys=True, separators=(",", ":"))
    assert payloads[1]["predicate"]["digest"] == sha256(document.encode())  # the report has ASCII and integers only
    assert result["wave_approvals_complete"] is True
    assert [each["place"] for each in result["signatures"]][-2:] == [FILE, FILE]


def test_wave_rules_that_differ_from_those_of_deployment_approval_are_shown(makers: World, verify: Verifier) -> None:
    """An org_admin replaced Ada with Eve after Ada had approved, so Ada's approval does not count."""
    found = bundle_hash_of(makers)
    changed = wave(
        found, wave=2, decisions=(decision(ADA), decision(GRACE, comment="fine"), decision(EVE)),
        reviewers=("user-3", "user-4"), required_approvals=2,
    )  # fmt: skip

    assert verify(approved_with(makers, chained(changed)), "--trust", KID) == 0

    assert facts(verify, "wave approval", "on the wave", "reviewers", "rules", "hold") == [
        "Wave 3 was approved by grace@example.com and eve@example.com at 2026-10-20T09:00:00Z. Waves 1 to 2: "
        "30 agents (30 active).",
        "(does not count) approve by ada@example.com at 2026-10-20T08:59:00Z",
        "approve by grace@example.com at 2026-10-20T08:59:00Z: fine",
        "approve by eve@example.com at 2026-10-20T08:59:00Z",
        "of wave 3 (user-3, user-4) differ from those in approval.json; an org_admin can change the reviewers, and the "
        "ledger records who did",
        "of wave 3 (2 required approvals, self-approval not allowed) differ from those in approval.json",
        "wave 3 has no approval hold in approval.json: the hold of an earlier wave without available agents applied to "
        "wave 3",
    ]


def test_second_approval_of_wave_and_approval_by_requester_are_proven(makers: World, verify: Verifier) -> None:
    """After the first approval was withdrawn, the requester approved the wave. The settings allow self-approval."""
    found = bundle_hash_of(makers)
    again = wave(found, approval_id="approval-3", reviewers=(), allow_self_approval=True, decisions=(decision(BOB),))

    assert verify(approved_with(makers, chained(wave(found), again)), "--trust", KID) == 0

    assert [line[:31] for line in facts(verify, "wave approval")] == [
        "Wave 2 was approved by grace@ex",
        "Wave 2 was approved by bob@exam",
    ]


def test_verifier_says_what_evidence_without_approval_record_does_not_cover(makers: World, verify: Verifier) -> None:
    files = unapproved_with(makers, lambda found: chained(wave(found), denied(found)))
    assert verify(files, "--trust", KID) == 0
    assert len(facts(verify, "wave approval")) == 2
    assert facts(verify, "NOT COVERED") == [
        "no signature covers the list of the wave approvals: the last ones could be missing"
    ]
    assert verify.result(files, "--trust", KID)["wave_approvals_complete"] is False

    first, second = json.loads(files[FILE])
    for kept in ([second], [second, first], [first, first], [first, second, second]):
        assert verify.result({**files, FILE: canonical(kept)}, "--trust", KID)["code"] == "wave_approval.order"
    for fewer in ({**files, FILE: canonical([first])}, without(files, FILE)):
        assert verify.result(fewer, "--trust", KID)["code"] == "statements.missing"
    summary = json.loads(files["deployment.json"]) | {"attestations": []}
    removed = {**without(files, FILE), "deployment.json": canonical(summary)}
    assert verify(removed, "--trust", KID) == 0
    assert facts(verify, "NOT COVERED") == ["nothing signed states whether a wave needed an approval"]


def test_statements_are_also_proven_if_their_file_is_named_individually(makers: World, verify: Verifier) -> None:
    assert verify(approved_with(makers, genuine(makers)), "--trust", KID) == 0
    names = {
        "bundle": "deploy-bundle.tar", "envelope": "envelope.json", "keys": "signing_keys.json",
        "approval": "approval.json", "wave-approvals": FILE,
    }  # fmt: skip
    argv = [f"--{option}={verify.export / name}" for option, name in names.items()]

    assert verify.run(*argv) == 0
    assert len(facts(verify, "wave approval")) == 2
    assert verify.run(*argv[:4]) == 0
    assert facts(verify, "NOT APPROVED") == [
        "wave 2: approval.json requires an approval before this wave",
        "wave 4: approval.json requires an approval before this wave",
    ]
    assert verify.run(str(verify.export), argv[4]) == 2


def test_statement_by_key_that_was_retired_later_is_proven(makers: World, verify: Verifier) -> None:
    def signed(at: datetime) -> Files:
        made = {"signed_at": at, "decisions": (decision(GRACE, at),)}
        requested = datetime(2026, 10, 8, tzinfo=UTC)
        return unapproved_with(
            makers, lambda found: chained(wave(found, **made), key=makers.retired), created_at=requested
        )

    early, late = (signed(datetime(2026, 10, day, tzinfo=UTC)) for day in (9, 11))
    assert verify(early, "--trust", KID, "--trust", RETIRED) == 0
    assert verify.result(early, "--trust", KID)["code"] == "keys.untrusted"
    assert verify.result(late, "--trust", KID, "--trust", RETIRED)["code"] == "wave_approval.unknown_key"


# -- forgeries --------------------------------------------------------------------------------------------------------


def _signed(*, key: bytes = World().active, about: str | None = None, **changes: Any) -> Forge:
    """Return a forgery with only one statement, by default signed by the organization. The record lists it."""

    def forge(makers: World, _: Files) -> Files:
        return approved_with(makers, chained(wave(about or bundle_hash_of(makers), **changes), key=key))

    return forge


def _edited(change: Callable[[list[Any]], object]) -> Forge:
    """Return a forgery that changes the list of envelopes."""

    def forge(makers: World, files: Files) -> Files:
        envelopes = json.loads(files[FILE])
        change(envelopes)
        return {**files, FILE: canonical(envelopes)}

    return forge


def _edited_predicate(change: Callable[[Any], object], key: bytes | None = None) -> Forge:
    """Return a forgery that changes the first predicate, with the old signature or with one by ``key``."""

    def edit(envelopes: list[Any]) -> None:
        statement = json.loads(base64.b64decode(envelopes[0]["payload"]))
        change(statement["predicate"])
        if key is None:
            envelopes[0]["payload"] = base64.b64encode(canonical(statement)).decode()
        else:
            digest = "sha256:" + statement["subject"][0]["digest"]["sha256"]
            envelopes[0] = dsse.sign_claim(wave_statement.PREDICATE_TYPE, digest, statement["predicate"], key)

    return _edited(edit)


def _resigned(change: Callable[[Any], object]) -> Forge:
    return _edited_predicate(change, World().active)


def _recorded(**record: Any) -> Forge:
    """Return a forgery with a record that has other values, which the organization signed."""
    return lambda makers, _: approved_with(makers, genuine(makers), **record)


def _holds(*holds: Any) -> Forge:
    """Return a forgery whose record contains other holds."""

    def forge(makers: World, _: Files) -> Files:
        strategy = {"kind": "waves", "percents": [5, 25, 50, 100], "holds": list(holds)}
        return approved_with(makers, genuine(makers), bound=bound(makers, strategy=strategy))

    return forge


OTHER_REPORT = report_of(sha256(b"other"), 1)
FORGERIES: dict[str, tuple[Forge, str]] = {
    # Statements about another bundle, deployment or report. The organization signed them.
    "another bundle": (_signed(about=sha256(b"other")), "wave_approval.subject: wave-approvals.json: wave 2: "),
    "another deployment": (
        _signed(deployment_id="2"), "wave_approval.deployment: wave-approvals.json: wave 2: deployment_id is 2"),
    "another environment": (_signed(environment_id="2"), "wave_approval.deployment: "),
    "another project": (_signed(project_id="2"), "wave_approval.deployment: "),
    "another organization": (_signed(org_id="2"), "wave_approval.deployment: "),
    "the report of another bundle": (_signed(report=OTHER_REPORT), "wave_approval.report: "),
    "the report of another wave": (
        _resigned(lambda each: each.update(wave=2)),
        "wave_approval.report: wave-approvals.json: wave 3: the report was made for wave 2"),
    "another digest": (_signed(digest=sha256(b"other")), "wave_approval.digest: wave-approvals.json: wave 2: the rep"),
    "another report": (
        _resigned(lambda each: each["report"]["progress"].update(active=29, failed=1)), "wave_approval.digest: "),
    "the approval record as statement": (
        lambda _, files: {**files, FILE: b"[" + files["approval.json"] + b"]"}, "wave_approval.malformed: "),
    # Decisions that are invalid, or do not lead to the stated outcome.
    "too few": (_signed(required_approvals=2), "wave_approval.too_few: wave-approvals.json: wave 2: 1 of 2 required "),
    "nobody": (_signed(decisions=(), required_approvals=0), "wave_approval.too_few: "),
    "a stranger": (
        _signed(decisions=(decision(EVE),)), "wave_approval.reviewer: wave-approvals.json: wave 2: 0 of 1 required "
        "person approved; not counted, because they are not reviewers: eve@example.com"),
    "a stranger who denies": (
        _signed(status="denied", decisions=(decision(EVE, decision="deny"),)), "wave_approval.reviewer: "),
    "the requester": (
        _signed(decisions=(decision(BOB),), reviewers=()), "wave_approval.requester: wave-approvals.json: wave 2: the "
        "requester approved their own request"),
    "the requester and a reviewer": (
        _signed(decisions=(decision(BOB), decision(GRACE)), reviewers=()), "wave_approval.requester: "),
    "an unknown requester": (_signed(requester_id=None), "wave_approval.requester: "),
    "one person twice": (
        _signed(decisions=(decision(GRACE), decision(GRACE)), required_approvals=2),
        "wave_approval.decisions: wave-approvals.json: wave 2: a person decided twice"),
    "approved although somebody denied": (
        _signed(decisions=(decision(GRACE), decision(ADA, decision="deny"))), "wave_approval.decisions: "),
    "denied although nobody denied": (_signed(status="denied"), "wave_approval.decisions: "),
    "a decision after the signature": (
        _signed(decisions=(decision(GRACE, FOURTH),)), "wave_approval.time: wave-approvals.json: wave 2: grace@"),
    "a decision before the request": (
        _signed(decisions=(decision(GRACE, datetime(2026, 10, 20, 7, tzinfo=UTC)),)), "wave_approval.time: "),
    # Statements that are missing, repeated, reordered, or not listed in the record.
    "a removed statement": (_edited(lambda each: each.pop()), "statements.missing: the statement sha256:"),
    "a removed first statement": (_edited(lambda each: each.pop(0)), "wave_approval.order: "),
    "no statement": (lambda _, files: without(files, FILE), "statements.missing: the statement sha256:"),
    "an empty list": (lambda _, files: {**files, FILE: b"[]"}, "statements.missing: the statement sha256:"),
    "a duplicated statement": (
        _edited(lambda each: each.append(each[1])),
        "wave_approval.order: wave-approvals.json: statement 3 (about wave 4) is a second statement of the "),
    "another order": (_edited(lambda each: each.reverse()), "wave_approval.order: "),
    "a statement that the record does not list": (
        _recorded(shown={"attestations": []}), "statements.other: wave-approvals.json, statement 1: approval.json "),
    "another statement of the same approval": (
        _resigned(lambda each: each["decisions"][0].update(comment="fine")), "wave_approval.order: "),
    "an older second statement": (
        lambda makers, _: approved_with(makers, chained(
            wave(bundle_hash_of(makers), signed_at=FOURTH + timedelta(1)), denied(bundle_hash_of(makers)))),
        "wave_approval.time: wave-approvals.json: statement 2 (about wave 4) is older "),
    # Waves without an approval hold, and malformed holds.
    "a strategy without approval holds": (
        _holds(None, "manual", None, None), "wave_approval.hold: wave-approvals.json: wave 2: the strategy in "
        "approval.json requires no approval before this wave"),
    "a strategy without holds": (_holds(), "wave_approval.hold: "),
    "a hold only before a later wave": (_holds(None, None, None, "approval"), "wave_approval.hold: "),
    "fewer waves": (
        _holds(None, "approval"), "wave_approval.hold: wave-approvals.json: wave 4: the strategy in approval.json has "
        "no hold before this wave"),
    "the first wave": (_signed(wave=0), "wave_approval.hold: "),
    "a malformed hold without statements": (
        lambda makers, _: without(approved_with(makers, [], bound=bound(makers, strategy={"holds": 1})), FILE),
        "evidence.approval_record: approval.json: the holds are malformed",
    ),
    "a malformed hold": (_holds(None, "other"), "evidence.approval_record: approval.json: the holds are malformed"),
    # Edits without the key, other keys, and malformed statements.
    "an unknown key": (_signed(key=World().stranger), "wave_approval.unknown_key: wave-approvals.json: "),
    "an edited report": (
        _edited_predicate(lambda each: each["report"].update(failures=[])  or each.update(digest=sha256(b"x"))),
        "wave_approval.bad_signature: "),
    "a dropped decision": (
        _edited_predicate(lambda each: each["decisions"].pop()), "wave_approval.bad_signature: wave-approvals.json: "),
    "no signature": (_edited(lambda each: each[0].update(signatures=[])), "wave_approval.unsigned: "),
    "an unknown member": (_resigned(lambda each: each.update(extra=1)), "wave_approval.malformed: "),
    "an unknown progress": (
        _resigned(lambda each: each["report"]["progress"].update(perfect=1)), "wave_approval.malformed: "),
    "a count of zero": (
        _resigned(lambda each: each["report"]["progress"].update(failed=0)), "wave_approval.malformed: "),
    "unsorted reviewers": (
        _resigned(lambda each: each["reviewers"].reverse()), "wave_approval.malformed: "),
    "another status": (_resigned(lambda each: each.update(status="expired")), "wave_approval.malformed: "),
    "no list": (lambda _, files: {**files, FILE: b"{}"}, "wave_approval.malformed: wave-approvals.json: not a JSON "),
    "a list of numbers": (lambda _, files: {**files, FILE: b"[1]"}, "wave_approval.malformed: "),
    "no JSON": (lambda _, files: {**files, FILE: b"x"}, "wave_approval.malformed: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_wave_approvals_are_not_proven(makers: World, verify: Verifier, name: str) -> None:
    forge, reason = FORGERIES[name]
    valid = approved_with(makers, genuine(makers))
    forged = forge(makers, valid)
    assert forged != valid

    assert verify(forged, "--trust", KID) == 1

    assert verify.output.startswith(f"NOT PROVEN  {reason}"), verify.output
    assert verify.output.count("\n") == 1


def test_only_approvals_by_reviewers_count_for_deployment_and_malformed_reviewer_list_is_rejected(
    makers: World, verify: Verifier
) -> None:
    valid = approved_with(makers, genuine(makers))
    odd: object
    for odd, code in (
        (["user-4"], "evidence.not_approved"), (["user-4", "user-1"], "evidence.approval_record"),
        ("user-1", "evidence.approval_record"),
    ):  # fmt: skip
        record = signed_record(makers, bundle_hash_of(makers), bound=bound(makers, reviewers=odd))
        assert verify.result({**valid, "approval.json": record}, "--trust", KID)["code"] == code
