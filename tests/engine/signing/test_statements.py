from __future__ import annotations

import base64
import hashlib
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import dsse, gate_statement, keys, test_result
from byteor.engine.signing.gate_statement import GateOverride
from byteor.engine.signing.refusals import Refused
from byteor.engine.signing.test_result import BaselineEntry, Difference, FixtureEntry
from tests.engine.signing import samples
from tests.engine.signing.conftest import RETIRED, World
from tests.engine.signing.samples import (
    ENGINE,
    OLD,
    OLDER,
    OLDEST,
    OPENING,
    OUTAGE,
    PRICE,
    VENUE,
    acceptance,
    outcome_of,
    setting,
)

BEFORE = datetime(2026, 10, 9, tzinfo=UTC)
LATE = datetime(2026, 10, 11, tzinfo=UTC)


def payload_of(envelope: Any) -> bytes:
    return base64.b64decode(envelope["payload"])


def compact(value: object) -> bytes:
    """Return the RFC 8785 JSON of a value with ASCII strings and without fractions."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def bare(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


FIXTURES = [
    {
        "name": "opening",
        "digest": bare(sha256(b"1")),
        "annotations": {
            "kind": "fixture", "fixture_id": "fixture-1", "journal_lane": "in", "last_n": 500, "golden": False,
        },
    },
    {
        "name": "outage",
        "digest": bare(sha256(b"2")),
        "annotations": {
            "kind": "fixture", "fixture_id": "fixture-2", "journal_lane": None, "last_n": None, "golden": True,
        },
    },
]  # fmt: skip


def test_test_result_is_in_toto_statement_about_spec_and_configuration(world: World) -> None:
    envelope, _ = samples.signed(world)

    assert json.loads(payload_of(envelope)) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "spec.kv", "digest": bare(sha256(world.spec_kv))},
            {"name": "configuration", "digest": bare(world.config_hash)},
        ],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "WARNED",
            "configuration": [
                {
                    "name": "regression",
                    "uri": "urn:byteor:regression:regression-1",
                    "annotations": {
                        "kind": "regression",
                        "signed_at": "2026-10-20T08:05:00Z",
                        "finished_at": "2026-10-20T07:58:00Z",
                        "vacuous": False,
                        "work": {"candidate": 110, "baseline": 100},
                        "not_tested": [{"config_hash": OLDEST, "agents": 2}],
                        "groups": [PRICE],
                        "group_sets": ["1"],
                        "accepted": [{"group": 0, "baseline": 1}],
                        "tests": [
                            {"fixture": 0, "baseline": 0, "outcome": "equal", "groups": None, "further": 0},
                            {"fixture": 0, "baseline": 1, "outcome": "different", "groups": 0, "further": 0},
                            {"fixture": 1, "baseline": None, "outcome": "equal", "groups": None, "further": 0},
                        ],
                    },
                },
                {"name": "engine", "digest": bare(ENGINE), "annotations": {"kind": "engine", "version": "1.4.0"}},
                {"name": OLD, "digest": bare(OLD), "annotations": {"kind": "baseline", "agents": 120, "of": 152}},
                {"name": OLDER, "digest": bare(OLDER), "annotations": {"kind": "baseline", "agents": 30, "of": 152}},
                *FIXTURES,
            ],
            "passedTests": [f"opening against {OLD}", "outage golden"],
            "warnedTests": [f"opening against {OLDER}"],
            "failedTests": [],
        },
    }


def test_gate_statement_contains_setting_acceptances_and_reference_to_test_result(world: World) -> None:
    tests, envelope = samples.signed(world, override=GateOverride("urgent", "eve@example.com"))

    statement = json.loads(payload_of(envelope))
    assert statement["predicateType"] == "urn:byteor:gate:v1"
    assert [each["name"] for each in statement["subject"]] == ["spec.kv", "configuration"]
    assert statement["predicate"] == {
        "org_id": "org-1", "project_id": "project-1", "environment_id": "environment-1",
        "deployment_id": "deployment-1", "spec_hash": sha256(world.spec_kv), "config_hash": world.config_hash,
        "setting": {"replay_gate": "require", "replay_gate_min_fixtures": 3, "max_work_increase_percent": 10},
        "override": {"reason": "urgent", "by": "eve@example.com"},
        "acceptances": [{
            "acceptance_id": "acceptance-1", "accepted_by": "ada@example.com", "user_id": "user-1",
            "reason": "rounding", "accepted_at": "2026-10-20T07:58:00Z",
            "differences": [{"group": PRICE, "baseline": OLDER}],
        }],
        "requested_by": "bob@example.com", "requester_id": "user-2", "approvals_required": True,
        "allow_self_acceptance": False, "signed_at": "2026-10-20T08:05:00Z",
        "tested": {
            "test_result": sha256(payload_of(tests)), "engine": ENGINE, "baselines": [OLD, OLDER],
            "fixtures": f"sha256:{hashlib.sha256(compact(FIXTURES)).hexdigest()}", "verdicts": 3,
        },
    }  # fmt: skip


def test_verified_statements_equal_signed_ones(world: World) -> None:
    first, second = samples.signed(world, key=world.retiring)
    kid = keys.kid(keys.public_key(world.retiring))

    result, gate = test_result.verify(first, world.keyset), gate_statement.verify(second, world.keyset)

    shown = frozenset({Difference(PRICE, OLDER)})
    assert result.content == samples.result(world, accepted=shown)
    assert replace(gate.content, tested=None) == samples.gate(world)
    assert (result.kid, gate.kid, result.payload_hash) == (kid, kid, sha256(payload_of(first)))
    gate_statement.check_reference(result, gate.content)
    gate_statement.check_gate(result.content, gate.content)
    alone = gate_statement.sign(replace(gate.content, tested=None), world.active)
    assert gate_statement.verify(alone, world.keyset).content == samples.gate(world)


def _refusal(world: World, envelope: object, module: Any = test_result) -> str:
    with pytest.raises(Refused) as refused:
        module.verify(envelope, world.keyset)
    return refused.value.code


def test_statement_is_trusted_only_if_signed_before_key_was_retired(world: World) -> None:
    assert BEFORE < RETIRED < LATE
    for at, is_trusted in ((BEFORE, True), (LATE, False)):
        first, second = samples.signed(world, key=world.retired, result_changes={"signed_at": at}, signed_at=at)
        if is_trusted:
            assert test_result.verify(first, world.keyset).content.signed_at == at
            assert gate_statement.verify(second, world.keyset).content.signed_at == at
        else:
            assert _refusal(world, first) == "test_result.unknown_key"
            assert _refusal(world, second, gate_statement) == "gate.unknown_key"
    claim = dsse.sign_claim("urn:x", sha256(b"x"), {}, world.retired)
    with pytest.raises(Refused, match=r"envelope\.unknown_key"):
        dsse.verify_claim("urn:x", claim, world.keyset)


def test_unsigned_forged_and_foreign_statements_are_refused(world: World) -> None:
    envelopes: tuple[Any, Any] = samples.signed(world)
    others: tuple[Any, Any] = samples.signed(world, key=world.stranger)
    for module, name, envelope, other in (
        (test_result, "test_result", envelopes[0], others[0]),
        (gate_statement, "gate", envelopes[1], others[1]),
    ):
        edited = envelope | {"payload": base64.b64encode(payload_of(envelope) + b" ").decode()}
        foreign = dsse.sign_claim(module.PREDICATE_TYPE, sha256(b"x"), {}, world.active)
        cases = {
            "unsigned": [envelope | {"signatures": []}, {"payload": envelope["payload"]}],
            "unknown_key": [other],
            "bad_signature": [edited, envelope | {"signatures": other["signatures"] and [
                {**other["signatures"][0], "keyid": envelope["signatures"][0]["keyid"]}]}],
            "malformed": [foreign, envelope | {"more": 1}, [], None, envelopes[module is test_result]],
        }  # fmt: skip
        for reason, forged in cases.items():
            for each in forged:
                assert _refusal(world, each, module) == f"{name}.{reason}", each


def _edited(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """Return a copy of JSON data with another value at ``path``, or without the member at ``path`` (``...``)."""
    copy = json.loads(json.dumps(document))
    parent = copy
    for name in path[:-1]:
        parent = parent[name]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return copy


def _members(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all members and objects."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found = [path] if isinstance(document, dict) else []
    for name, value in items:
        found += [(*path, name)] * isinstance(document, dict)
        if isinstance(value, dict | list):
            found += _members(value, (*path, name))
    return found


def test_missing_unknown_and_mistyped_members_are_refused(world: World) -> None:
    envelopes = samples.signed(world, override=GateOverride("urgent", "eve@example.com"))
    hashes = (sha256(world.spec_kv), world.config_hash)
    parsers: tuple[Any, Any] = test_result.TestResult.from_document, gate_statement.GateStatement.from_document
    for envelope, parse in zip(envelopes, parsers, strict=True):
        document = json.loads(payload_of(envelope))["predicate"]
        assert canonical(parse(document, *hashes).document()) == canonical(document)
        paths = _members(document)
        assert len(paths) > 30
        for path in paths:
            changes = [((*path, "more"), 1)] if isinstance(_at(document, path), dict) else [(path, 1.5), (path, ...)]
            for changed, value in changes:
                with pytest.raises(ValueError):  # noqa: PT011  each member has its own message
                    parse(_edited(document, changed, value), *hashes)
    with pytest.raises(ValueError, match="its hashes differ from the subject"):
        gate_statement.GateStatement.from_document(document, sha256(b"other"), world.config_hash)


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        document = document[name]
    return document


REGRESSION = ("configuration", 0, "annotations")
CONTRADICTIONS: list[tuple[tuple[Any, ...], object]] = [
    (("result",), "PASSED"),
    (("passedTests",), []),
    (("passedTests", 0), "another test"),
    (("warnedTests",), []),
    ((*REGRESSION, "vacuous"), True),
    ((*REGRESSION, "vacuous"), 0),
    ((*REGRESSION, "accepted"), []),
    ((*REGRESSION, "accepted", 0, "baseline"), 0),
    ((*REGRESSION, "groups"), [PRICE, VENUE]),
    ((*REGRESSION, "groups"), ["A" * 64]),
    ((*REGRESSION, "group_sets", 0), "2"),
    ((*REGRESSION, "group_sets", 0), "0"),
    ((*REGRESSION, "group_sets", 0), "01"),
    ((*REGRESSION, "group_sets", 0), "x"),
    ((*REGRESSION, "group_sets", 0), 1),
    ((*REGRESSION, "tests", 1, "groups"), True),
    ((*REGRESSION, "tests", 1, "groups"), -1),
    ((*REGRESSION, "tests", 1, "outcome"), "equal"),
    ((*REGRESSION, "tests", 1, "outcome"), "skipped"),
    ((*REGRESSION, "tests", 1, "further"), 1),
    ((*REGRESSION, "tests", 1, "fixture"), 2),
    ((*REGRESSION, "tests", 1, "baseline"), 0),
    (("configuration", 0, "uri"), "urn:other:regression-1"),
    (("configuration", 2, "name"), OLDER),
    (("configuration", 2, "digest", "sha256"), "0"),
    (("configuration", 1), FIXTURES[0]),
]


@pytest.mark.parametrize(("path", "value"), CONTRADICTIONS, ids=str)
def test_malformed_or_contradictory_test_result_is_refused(world: World, path: tuple[Any, ...], value: object) -> None:
    document = json.loads(payload_of(samples.signed(world)[0]))["predicate"]

    with pytest.raises(ValueError):  # noqa: PT011  each fault has its own message
        test_result.TestResult.from_document(_edited(document, path, value), "sha256:x", "sha256:y")


@pytest.mark.parametrize(
    "changes",
    [
        {"tests": (outcome_of(OPENING, OLDEST, "equal"),)},
        {"fixtures": (OPENING,)},
        {"fixtures": (OPENING, OUTAGE, OUTAGE)},
        {"fixtures": (OPENING, replace(OUTAGE, name="opening")), "tests": (
            outcome_of(OPENING, OLD, "equal"), outcome_of(OUTAGE, OLD, "equal"))},
        {"baselines": (BaselineEntry(OLD, 1, 2), BaselineEntry(OLDER, 1, 2), BaselineEntry(OLD, 1, 2))},
        {"tests": (outcome_of(OPENING, OLD, "equal"), outcome_of(OPENING, OLD, "failed"))},
    ],
    ids=range(6),
)  # fmt: skip
def test_test_result_with_unknown_or_repeated_parts_cannot_be_created(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="listed"):
        samples.result(world, **changes)


@pytest.mark.parametrize(
    ("tests", "lists"),
    [
        ([outcome_of(OPENING, OLD, "equal")], ("PASSED", 1, 0, 0)),
        ([outcome_of(OPENING, OLD, "different", PRICE)], ("WARNED", 0, 1, 0)),
        ([outcome_of(OPENING, OLD, "different", PRICE, VENUE)], ("FAILED", 0, 0, 1)),
        ([outcome_of(OPENING, OLDER, "different", PRICE)], ("FAILED", 0, 0, 1)),
        ([outcome_of(OPENING, OLD, "different", PRICE, further=1)], ("FAILED", 0, 0, 1)),
        ([outcome_of(OPENING, OLD, "different")], ("FAILED", 0, 0, 1)),
        ([outcome_of(OPENING, OLD, "unstable", PRICE)], ("FAILED", 0, 0, 1)),
        ([outcome_of(OPENING, OLD, "failed"), outcome_of(OPENING, OLDER, "equal")], ("FAILED", 1, 0, 1)),
        ([outcome_of(OPENING, OLD, "not_tested"), outcome_of(OPENING, OLDER, "equal")], ("WARNED", 1, 1, 0)),
        ([outcome_of(OPENING, OLD, "not_tested")], ("WARNED", 0, 1, 0)),
        ([], ("WARNED", 0, 0, 0)),
    ],
    ids=range(11),
)
def test_result_depends_on_outcomes_and_acceptances(
    world: World, tests: list[Any], lists: tuple[str, int, int, int]
) -> None:
    envelope, _ = samples.signed(world, result_changes={"tests": tuple(tests)}, acceptances=(acceptance((PRICE, OLD)),))

    found = json.loads(payload_of(envelope))["predicate"]

    counts = (len(found[name]) for name in ("passedTests", "warnedTests", "failedTests"))
    assert (found["result"], *counts) == lists
    is_vacuous = all(each.outcome == "not_tested" for each in tests)
    assert found["configuration"][0]["annotations"]["vacuous"] is is_vacuous


# -- whether the gate was open ----------------------------------------------------------------------------------------


GATES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "accepted": ({}, {}, None),
    "not accepted": ({}, {"acceptances": ()}, "unaccepted"),
    "not accepted, but overridden": ({}, {"acceptances": (), "override": GateOverride("urgent", "eve")}, None),
    "not accepted, but only a warning": ({}, {"acceptances": (), "setting": setting("warn")}, None),
    "not accepted, but off": ({}, {"acceptances": (), "setting": setting("off")}, None),
    "accepted for another baseline": ({}, {"acceptances": (acceptance((PRICE, OLD)),)}, "unaccepted"),
    "accepted for golden results": ({}, {"acceptances": (acceptance((PRICE, None)),)}, "unaccepted"),
    "another group accepted": ({}, {"acceptances": (acceptance((VENUE, OLDER)),)}, "unaccepted"),
    "accepted in two parts": (
        {"tests": (outcome_of(OPENING, OLDER, "different", PRICE), outcome_of(OUTAGE, None, "different", VENUE),
                   outcome_of(OPENING, OLD, "equal"))},
        {"acceptances": (acceptance((PRICE, OLDER)), acceptance((VENUE, None), acceptance_id="2"))}, None),
    "accepted by the requester": ({}, {"requester_id": "user-1"}, "unaccepted"),
    "accepted by the requester, as permitted": ({}, {"requester_id": "user-1", "allow_self_acceptance": True}, None),
    "accepted by the requester without approvals": ({}, {"requester_id": "user-1", "approvals_required": False}, None),
    "accepted for an unknown requester": ({}, {"requester_id": None}, None),
    "accepted by an API key": (
        {}, {"acceptances": (acceptance((PRICE, OLDER), user_id=None),), "allow_self_acceptance": True}, "unaccepted"),
    "accepted by an API key without approvals": (
        {}, {"acceptances": (acceptance((PRICE, OLDER), user_id=None),), "approvals_required": False}, None),
    "failed": ({"tests": (outcome_of(OPENING, OLD, "failed"),)}, {}, "failed"),
    "unstable and accepted": ({"tests": (outcome_of(OPENING, OLDER, "unstable", PRICE),)}, {}, "failed"),
    "differences without a group": (
        {"tests": (outcome_of(OPENING, OLDER, "different", PRICE, further=1),)}, {}, "unaccepted"),
    "a difference without any group": ({"tests": (outcome_of(OPENING, OLDER, "different"),)}, {}, "unaccepted"),
    "too few verdicts": ({}, {"setting": setting(min_fixtures=4)}, "too_few_fixtures"),
    "too few verdicts, because one could not run": (
        {"tests": (*samples.TESTS[:2], outcome_of(OUTAGE, None, "not_tested"))}, {}, "too_few_fixtures"),
    "nothing tested": ({"tests": ()}, {"setting": setting(min_fixtures=0)}, None),
    "as much work as permitted": ({}, {"setting": setting(work=10)}, None),
    "too much work": ({"work_candidate": 111}, {}, "work"),
    "much work without a limit": ({"work_candidate": 10**12}, {"setting": setting(work=None)}, None),
    "much work without a baseline": ({"work_baseline": 0}, {}, None),
    "not completed": ({"finished_at": None}, {}, "unfinished"),
}  # fmt: skip


@pytest.mark.parametrize("name", GATES)
def test_check_gate_refuses_with_expected_reason_unless_gate_was_open(world: World, name: str) -> None:
    result_changes, gate_changes, reason = GATES[name]
    result, gate = samples.result(world, **result_changes), samples.gate(world, **gate_changes)

    code = None
    try:
        gate_statement.check_gate(result, gate)
    except Refused as refused:
        code = refused.code

    assert code == (reason and f"gate.{reason}")


def test_test_result_and_gate_must_name_same_accepted_differences(world: World) -> None:
    for accepted, stated in (((PRICE, OLDER), (VENUE, OLDER)), ((VENUE, OLDER), (PRICE, OLDER))):
        first, second = samples.signed(world, acceptances=(acceptance(accepted),))
        result, gate = test_result.verify(first, world.keyset), gate_statement.verify(second, world.keyset).content
        gate_statement.check_reference(result, gate)
        with pytest.raises(Refused, match=r"statements\.acceptance: .*the group a{64} against sha256:"):
            gate_statement.check_reference(result, replace(gate, acceptances=(acceptance(stated),)))
    with pytest.raises(Refused, match=r"statements\.missing"):
        gate_statement.check_reference(None, gate)
    with pytest.raises(Refused, match=r"statements\.subject"):
        gate_statement.check_reference(result, replace(gate, config_hash=OLD))


def test_required_gate_needs_regression(world: World) -> None:
    with pytest.raises(Refused, match=r"gate\.unfinished"):
        gate_statement.check_gate(None, samples.gate(world))
    gate_statement.check_gate(None, samples.gate(world, setting=setting("warn")))


def test_large_test_result_can_be_read(world: World) -> None:
    """Each of 1,250 tests shows 200 random groups. As lists, they would exceed the limit of values in a JSON text."""
    groups = [f"{number:064x}" for number in range(1_000)]
    fixtures = tuple(
        FixtureEntry(fixture_id=f"{number:036}", name=f"fixture {number}", content_hash=sha256(b"%d" % number),
                     journal_lane=None, last_n=None, golden=False)
        for number in range(250)
    )  # fmt: skip
    baselines = tuple(BaselineEntry(sha256(b"%d" % number), 1, 5) for number in range(5))
    shuffled = random.Random(1)
    tests = tuple(
        outcome_of(fixture, each.config_hash, "different", *shuffled.sample(groups, 200))
        for fixture in fixtures
        for each in baselines
    )

    envelope, _ = samples.signed(world, result_changes={"fixtures": fixtures, "baselines": baselines, "tests": tests})

    assert len(payload_of(envelope)) < 1_000_000
    assert test_result.verify(envelope, world.keyset).content.tests == tests
