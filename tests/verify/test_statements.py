"""Tests of evidence with statements about the tests and the replay gate, and of forgeries of these statements.

A forger may have every statement that the organization signed for other deployments. The tests also use statements that
only the organization could have signed, because the verifier must name the part that does not match.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import gate_statement, keys
from byteor.engine.signing.bundle import BuiltBundle
from byteor.engine.signing.gate_statement import GateOverride
from byteor.engine.signing.test_result import BaselineEntry, EngineEntry
from tests.engine.signing import samples
from tests.engine.signing.conftest import World
from tests.engine.signing.samples import (
    ENGINE,
    OLD,
    OLDER,
    OLDEST,
    OPENING,
    OTHER_ENGINE,
    OUTAGE,
    PRICE,
    TESTS,
    VENUE,
    acceptance,
    outcome_of,
    setting,
)  # fmt: skip
from tests.verify.conftest import Files, Verifier, config_hash, export, signed_record
from tests.verify.exports import KID, without

RETIRED = keys.kid(keys.public_key(World().retired))
OVERRIDE = GateOverride("urgent", "eve@example.com")
STATEMENTS = ("test-result.json", "gate.json")

type Forge = Callable[[World, Files], Files]


def pair(makers: World, **changes: Any) -> Files:
    """Return the files of both statements, by default for the sample deployment.

    ``changes`` are passed to ``samples.signed``.
    """
    return dict(zip(STATEMENTS, map(canonical, samples.signed(makers, **changes)), strict=True))


def bound(makers: World, **options: Any) -> Any:
    return {"spec_hash": sha256(makers.spec_kv), "config_hash": makers.config_hash, **options}


def _with_record(makers: World, built: BuiltBundle, files: Files, **options: Any) -> Files:
    """Return an approved export with the statements in ``files``. The signed record lists them."""
    shown = {"agents": 2, "attestations": sorted(map(sha256, files.values()))}
    record = {"shown": shown, "bound": bound(makers, **options)}
    return {**export(makers, built, approval=makers.credential(), record=record), **files}


def approved_with(makers: World, files: Files | None = None, **options: Any) -> Files:
    """Return an approved export with these statements; by default, with those of the sample."""
    built = makers.bundle(approval=makers.credential())
    return _with_record(makers, built, pair(makers) if files is None else files, **options)


def unapproved_with(makers: World, files: Files, override: str = "") -> Files:
    """Return an export without an approval, whose unsigned deployment.json lists these statements."""
    built = makers.bundle(approved_at=None)
    listed = sorted(map(sha256, files.values()))
    return {**export(makers, built, attestations=listed, replay_gate_override=override), **files}


# -- what is proven ---------------------------------------------------------------------------------------------------


def test_proof_shows_tests_and_acceptances(makers: World, verify: Verifier) -> None:
    files = approved_with(makers)

    assert verify(files, "--trust", KID) == 0

    lines = verify.output.splitlines()
    first = (
        lines.index('  bound to      target: {"all":true}') if '  bound to      target: {"all":true}' in lines else 4
    )
    assert lines[first + 1 : first + 7] == [
        "  tested        3 verdicts of 2 fixtures (2 equal, 1 different) against recorded results and 2 configurations "
        f"that agents ran; engine 1.4.0, {ENGINE}",
        f"  compared with {OLD}, which 120 of 152 agents ran",
        f"  compared with {OLDER}, which 30 of 152 agents ran",
        f"  NOT TESTED    a comparison with {OLDEST}, which 2 agents ran",
        f"  accepted      group {PRICE} against {OLDER} by ada@example.com at 2026-10-20T07:58:00Z: rounding",
        "  gate          require, at least 3 verdicts, at most 10% more work, acceptances only by people other than "
        "the requester",
    ]
    covers = [line.split(" (trusted): ")[1] for line in lines if line.startswith("  signature     ")]
    assert covers[-2:] == [
        "the spec, the configuration and its tests: engine, fixtures, compared configurations, results",
        "the deployment, the replay gate's settings and override, and the acceptances when the build started",
    ]
    result = verify.result(files, "--trust", KID)
    for name, place in (("test_result", "test-result.json"), ("gate", "gate.json")):
        assert result[name] == json.loads(base64.b64decode(json.loads(files[place])["payload"]))["predicate"]
    assert [each["place"] for each in result["signatures"]][-2:] == list(STATEMENTS)


SHOWN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "vacuous": (
        {"result_changes": {"tests": (), "fixtures": (), "baselines": ()}, "setting": setting(min_fixtures=0)},
        ["NOT TESTED    nothing was tested: there are no results"]),
    "no test could run": (
        {"result_changes": {"tests": (outcome_of(OUTAGE, None, "not_tested"),)}, "setting": setting(min_fixtures=0)},
        ["NOT TESTED    nothing was tested: 1 test could not run"]),
    "warn with differences": (
        {"acceptances": (), "setting": setting("warn", 0, None), "approvals_required": False,
         "result_changes": {"tests": (outcome_of(OPENING, OLD, "different", PRICE, VENUE, further=2),)}},
        ["tested        1 verdict of 2 fixtures (1 different) against 2 configurations that agents ran; ",
         f"NOT ACCEPTED  groups {PRICE}, {VENUE} against {OLD}",
         "NOT ACCEPTED  2 further differences in no group", "gate          warn"]),
    "warn before the regression was completed": (
        {"setting": setting("warn"), "result_changes": {"finished_at": None, "engine": None}},
        ["tested        3 verdicts of 2 fixtures (2 equal, 1 different) against recorded results and 2 configurations "
         "that agents ran; an unknown engine",
         "NOT TESTED    the regression regression-1 had not been completed when the build started"]),
    "an acceptance that does not count": (
        {"acceptances": (acceptance((PRICE, OLDER), (VENUE, None)), acceptance((PRICE, OLDER), user_id=None))},
        [f"accepted      group {VENUE} against recorded results by ada@example.com at ",
         f"accepted      (does not count) group {PRICE} against {OLDER} by ada@example.com at "]),
    "an override": (
        {"override": OVERRIDE, "acceptances": ()},
        [f"NOT ACCEPTED  group {PRICE} against {OLDER}", "override      by eve@example.com: urgent"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_proof_says_what_is_not_tested_or_not_accepted(makers: World, verify: Verifier, name: str) -> None:
    changes, expected = SHOWN[name]
    reason = "urgent" if "override" in changes else None

    assert verify(approved_with(makers, pair(makers, **changes), override_replay_gate=reason), "--trust", KID) == 0

    lines = verify.output.splitlines()
    for text in expected:
        assert any(line.startswith(f"  {text}") for line in lines), (text, verify.output)
    facts = [line for line in lines if line[2:15].strip() in {"tested", "NOT TESTED", "accepted", "gate"}]
    assert facts[0].startswith(f"  {expected[0]}" if name in {"vacuous", "no test could run"} else "  tested ")


def test_statements_are_proven_for_unapproved_deployment_and_if_files_are_named_individually(
    makers: World, verify: Verifier
) -> None:
    files = unapproved_with(makers, pair(makers, override=OVERRIDE), "urgent")
    assert verify(files, "--trust", KID) == 0
    assert "  override      by eve@example.com: urgent\n" in verify.output

    assert verify(approved_with(makers), "--trust", KID) == 0
    names = {
        "bundle": "deploy-bundle.tar", "envelope": "envelope.json", "keys": "signing_keys.json",
        "approval": "approval.json", "test-result": "test-result.json", "gate": "gate.json",
    }  # fmt: skip
    argv = [f"--{option}={verify.export / name}" for option, name in names.items()]
    assert verify.run(*argv) == 0
    assert "  tested        3 verdicts" in verify.output
    assert verify.run(*argv[:4]) == 0
    assert "  NOT TESTED    nothing in the evidence says how the configuration was tested\n" in verify.output
    assert verify.run(*argv[:5]) == 1
    assert verify.output.startswith("NOT PROVEN  statements.missing: gate.json ")
    assert verify.run(*argv[:4], argv[5]) == 1
    assert verify.output.startswith("NOT PROVEN  statements.missing: ")
    assert verify.run(str(verify.export), argv[5]) == 2


def test_gate_without_regression_needs_no_test_result(makers: World, verify: Verifier) -> None:
    alone = samples.gate(makers, setting=setting("off"), acceptances=())
    envelope = gate_statement.sign(alone, makers.active)
    files = approved_with(makers, {"gate.json": canonical(envelope)})

    assert verify(files, "--trust", KID) == 0
    assert "  NOT TESTED    nothing was tested: there was no regression\n  gate          off\n" in verify.output
    assert verify.result({**files, **without(pair(makers), "gate.json")})["code"] == "statements.test_result"


def test_statements_by_key_that_was_retired_later_are_proven(makers: World, verify: Verifier) -> None:
    before, after = datetime(2026, 10, 9, tzinfo=UTC), datetime(2026, 10, 11, tzinfo=UTC)
    early, late = (
        approved_with(makers, pair(makers, key=makers.retired, result_changes={"signed_at": at}, signed_at=at))
        for at in (before, after)
    )

    assert verify(early, "--trust", KID, "--trust", RETIRED) == 0
    assert verify.result(early, "--trust", KID)["code"] == "keys.untrusted"
    assert verify.result(late)["code"] == "test_result.unknown_key"


# -- forgeries --------------------------------------------------------------------------------------------------------


def _swapped(*names: str, **changes: Any) -> Forge:
    """Return a forgery that replaces files with those of another pair, by default signed by the organization.

    ``changes`` are passed to ``pair``, except for ``world``: if passed, the other pair has the spec and configuration
    of that world. With ``key``, somebody else has signed the other pair.
    """

    def forge(makers: World, files: Files) -> Files:
        other = pair(changes.get("world", makers), **{k: v for k, v in changes.items() if k != "world"})
        return {**files, **{name: other[name] for name in names}}

    return forge


def _removed(*names: str) -> Forge:
    return lambda _, files: {name: data for name, data in files.items() if name not in names}


def _edited(name: str, change: Callable[[Any], Any]) -> Forge:
    """Return a forgery that changes an envelope."""
    return lambda _, files: {**files, name: canonical(change(json.loads(files[name])))}


def _edit_payload(change: Callable[[Any], object]) -> Callable[[Any], Any]:
    def edit(envelope: Any) -> Any:
        statement = json.loads(base64.b64decode(envelope["payload"]))
        change(statement["predicate"])
        return envelope | {"payload": base64.b64encode(canonical(statement)).decode()}

    return edit


def _unsigned(envelope: Any) -> Any:
    return envelope | {"signatures": []}


def _gate_only(**changes: Any) -> Forge:
    """Return a forgery in which only the gate differs. The gate still refers to the test result in the evidence."""

    def forge(makers: World, files: Files) -> Files:
        document = json.loads(base64.b64decode(json.loads(files["gate.json"])["payload"]))["predicate"]
        genuine = gate_statement.GateStatement.from_document(document, sha256(makers.spec_kv), makers.config_hash)
        return {
            **files, "gate.json": canonical(gate_statement.sign(replace(genuine, **changes), makers.active)),
        }  # fmt: skip

    return forge


OTHER_SPEC = World(spec_kv=b"x", config_hash=config_hash())
OTHER_CONFIG = World(spec_kv=World().spec_kv, config_hash=sha256(b"x"))
OTHER_FIXTURE = replace(OUTAGE, content_hash=sha256(b"3"))
LOOSE = setting(min_fixtures=0)
FORGERIES: dict[str, tuple[Forge, str]] = {
    # Statements that do not match each other or the rest of the evidence, or have no valid signature.
    "another spec": (_swapped(*STATEMENTS, world=OTHER_SPEC), "statements.subject: test-result.json: "),
    "another configuration": (_swapped(*STATEMENTS, world=OTHER_CONFIG), "statements.subject: test-result.json: "),
    "a gate of another configuration": (_swapped("gate.json", world=OTHER_CONFIG), "statements.subject: gate.json: "),
    "another baseline": (
        _swapped("test-result.json", result_changes={
            "baselines": (BaselineEntry(OLDEST, 120, 152), BaselineEntry(OLDER, 30, 152)),
            "tests": TESTS[1:]}),
        "statements.baselines: "),
    "other fixtures": (
        _swapped("test-result.json", result_changes={"fixtures": (OPENING, OTHER_FIXTURE)}), "statements.fixtures: "),
    "another engine": (
        _swapped("test-result.json", result_changes={"engine": EngineEntry(OTHER_ENGINE, "1.4.0")}),
        "statements.engine: "),
    "a removed acceptance": (_gate_only(acceptances=()), f"statements.acceptance: the test result says that the group "
                             f"{PRICE} against {OLDER} was accepted"),
    "an invented override": (_gate_only(override=OVERRIDE), 'statements.override: gate.json: the override "urgent" '),
    "an unknown key for the gate": (_swapped("gate.json", key=World().stranger), "gate.unknown_key: gate.json: "),
    "an unknown key for the result": (
        _swapped("test-result.json", key=World().stranger), "test_result.unknown_key: test-result.json: "),
    "an unsigned gate": (_edited("gate.json", _unsigned), "gate.unsigned: gate.json: "),
    "an unsigned result": (_edited("test-result.json", _unsigned), "test_result.unsigned: test-result.json: "),
    # Statements that the organization signed for other deployments, another state of this one, or another purpose.
    "a gate of another deployment": (_swapped("gate.json", deployment_id="2"), "statements.deployment: gate.json: "
                                     "deployment_id is 2, but the manifest has deployment-1"),
    "both statements of another deployment": (_swapped(*STATEMENTS, deployment_id="2"), "statements.deployment: "),
    "a gate of another environment": (_swapped("gate.json", environment_id="2"), "statements.deployment: "),
    "a gate of another project": (_swapped("gate.json", project_id="2"), "statements.deployment: "),
    "a gate of another organization": (_swapped("gate.json", org_id="2"), "statements.deployment: "),
    "other results": (
        _swapped("test-result.json", result_changes={
            "tests": (*TESTS[:1], outcome_of(OPENING, OLDER, "equal"), TESTS[2])}),
        "statements.test_result: "),
    "a result from another time": (
        _swapped("test-result.json", result_changes={"signed_at": datetime(2026, 10, 21, tzinfo=UTC)}),
        "statements.test_result: "),
    "a gate of a result without acceptances": (_swapped("gate.json", acceptances=()), "statements.test_result: "),
    "other settings": (_gate_only(setting=LOOSE), "statements.other: gate.json: approval.json does not list this"),
    "both statements with other settings": (_swapped(*STATEMENTS, setting=LOOSE), "statements.other: gate.json: "),
    "other statements": (
        _swapped(*STATEMENTS, result_changes={"regression_id": "2"}), "statements.other: test-result.json: "),
    "a gate instead of the result": (
        lambda _, files: {**files, "test-result.json": files["gate.json"]}, "test_result.malformed: test-result.json"),
    "a result instead of the gate": (
        lambda _, files: {**files, "gate.json": files["test-result.json"]}, "gate.malformed: gate.json: "),
    "the approval record instead of the gate": (
        lambda _, files: {**files, "gate.json": files["approval.json"]}, "gate.malformed: gate.json: "),
    # Edits without the key, and files without an envelope.
    "an edited acceptance": (
        _edited("gate.json", _edit_payload(lambda gate: gate["acceptances"][0].update(accepted_by="eve"))),
        "gate.bad_signature: gate.json: "),
    "an acceptance cut out": (
        _edited("gate.json", _edit_payload(lambda gate: gate.update(acceptances=[]))), "gate.bad_signature: "),
    "an edited result": (
        _edited("test-result.json", _edit_payload(lambda result: result.update(result="PASSED"))),
        "test_result.bad_signature: "),
    "a gate without an envelope": (lambda _, files: {**files, "gate.json": b"x"}, "gate.malformed: gate.json: "),
    "a result without an envelope": (lambda _, files: {**files, "test-result.json": b"[]"}, "test_result.malformed: "),
    # Removed files.
    "no gate": (_removed("gate.json"), "statements.missing: gate.json is missing"),
    "no result": (_removed("test-result.json"), "statements.missing: the test result that the gate used"),
    "no statements": (_removed(*STATEMENTS), "statements.missing: the statement sha256:"),
    # A gate that was not open, although the organization signed all of this.
    "no acceptance": (
        _swapped(*STATEMENTS, acceptances=()), f"gate.unaccepted: the group {PRICE} "
    ),
    "an acceptance by the requester": (_swapped(*STATEMENTS, requester_id="user-1"), "gate.unaccepted: "),
    "a failed test": (
        _swapped(*STATEMENTS, result_changes={"tests": (outcome_of(OPENING, OLD, "failed"),)}), "gate.failed: 1 of 1 "),
    "too few tests": (
        _swapped(*STATEMENTS, setting=setting(min_fixtures=4)), "gate.too_few_fixtures: the test result has 3 verdicts "
    ),
    "too much work": (_swapped(*STATEMENTS, setting=setting(work=9)), "gate.work: the work rose from 100 to 110"),
    "no completed regression": (_swapped(*STATEMENTS, result_changes={"finished_at": None}), "gate.unfinished: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_statements_are_not_proven(makers: World, verify: Verifier, name: str) -> None:
    forge, reason = FORGERIES[name]
    genuine = approved_with(makers)
    forged = forge(makers, genuine)
    assert forged != genuine

    assert verify(forged, "--trust", KID) == 1

    assert verify.output.startswith(f"NOT PROVEN  {reason}"), verify.output
    assert verify.output.count("\n") == 1


UNAPPROVED = {
    "an invented override": "statements.override",
    "other settings": "statements.other",
    "other statements": "statements.other",
    "no statements": "statements.missing",
    "no gate": "statements.missing",
    "no result": "statements.missing",
}


@pytest.mark.parametrize("name", UNAPPROVED)
def test_evidence_of_unapproved_deployment_with_missing_or_forged_statements_is_not_proven(
    makers: World, verify: Verifier, name: str
) -> None:
    genuine = unapproved_with(makers, pair(makers))
    assert verify(genuine, "--trust", KID) == 0

    assert verify.result(FORGERIES[name][0](makers, genuine), "--trust", KID)["code"] == UNAPPROVED[name]


def test_removed_or_changed_override_is_not_proven(makers: World, verify: Verifier) -> None:
    files = pair(makers, override=OVERRIDE)
    for other in ({}, {"override": "other"}):
        assert verify.result(unapproved_with(makers, files, **other))["code"] == "statements.override"
    without_summary = without(unapproved_with(makers, files, "urgent"), "deployment.json")
    assert verify.result(without_summary)["code"] == "statements.override"

    for options in ({}, {"override_replay_gate": None}, {"override_replay_gate": "other"}):
        assert verify.result(approved_with(makers, files, **options))["code"] == "statements.override"
    overridden = approved_with(makers, files, override_replay_gate="urgent")
    assert verify(overridden, "--trust", KID) == 0
    assert verify.result(_gate_only(override=None)(makers, overridden))["code"] == "statements.override"


def test_statements_are_compared_with_deployment_json_if_record_has_no_list_of_statements(
    makers: World, verify: Verifier
) -> None:
    """A record from an older server has no list of statements. Otherwise, the list in the record has priority."""
    older = {**approved_with(makers), "approval.json": signed_record(makers, _bundle_hash(makers))}
    assert verify(older, "--trust", KID) == 0

    listing_none = signed_record(makers, _bundle_hash(makers), shown={"attestations": []})
    assert verify.result({**older, "approval.json": listing_none})["code"] == "statements.other"
    summary = canonical({**json.loads(older["deployment.json"]), "attestations": [sha256(b"other")]})
    assert verify.result({**older, "deployment.json": summary})["code"] == "statements.other"
    odd: object
    for odd in ("x", {}, [1, None]):
        summary = canonical({**json.loads(older["deployment.json"]), "attestations": odd})
        assert verify.result({**older, "deployment.json": summary})["code"] == "statements.other"


def _bundle_hash(makers: World) -> str:
    return makers.bundle(approval=makers.credential()).bundle_hash
