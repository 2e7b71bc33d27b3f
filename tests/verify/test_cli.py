"""Tests of the output of ``byteor-verify`` for hostile files and wrong command lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.engine.delivery.encoding import canonical
from tests.engine.delivery.conftest import World
from tests.verify.conftest import DECISION, Files, Verifier, export
from tests.verify.exports import KID

HOSTILE = "a\x1b[8A\r  approved by   ceo"


def test_unsigned_text_cannot_imitate_or_overwrite_proven_lines(makers: World, verify: Verifier) -> None:
    unsigned: dict[str, Any] = {HOSTILE: "\x9b8A\n\u202eb\u2028\x7f"}
    record = {"decisions": [{**DECISION, "decided_by": "ada\n  approved by   ceo", "comment": HOSTILE}]}
    credential = makers.credential(issued_by="ada\n  approved by   ceo")
    files = export(makers, makers.bundle(approval=credential), approval=credential, record=record, **unsigned)

    assert verify(files, "--trust", KID) == 0

    lines = verify.output.split("\n")
    assert all(line.isprintable() for line in lines)
    assert [line[:16] for line in lines if "approved by" in line[:16]] == ["  approved by   "]
    assert lines[1].startswith("  approved by   ada\\u000a  approved by   ceo at ")
    assert "  not signed    a\\u001b[8A\\u000d  approved by   ceo: " in verify.output
    assert "\\u009b8A" in verify.output
    assert verify.result(files)["unsigned"] == unsigned
    assert verify.output.strip("\n").isprintable()


def test_a_refusal_is_one_printable_line(approved: Files, verify: Verifier, tmp_path: Path) -> None:
    envelope = {**json.loads(approved["envelope.json"]), HOSTILE: "\x9b"}
    assert verify({**approved, "envelope.json": canonical(envelope)}) == 1
    assert verify.output.startswith("NOT PROVEN  envelope.")
    assert verify.output.removesuffix("\n").isprintable()

    (tmp_path / "x\x1b[2K.tar").write_bytes(b"x" * 2000)
    assert verify.run(str(tmp_path / "x\x1b[2K.tar")) == 1
    assert verify.output.startswith("NOT PROVEN  evidence.malformed: x\\u001b[2K.tar: ")
    assert verify.output.removesuffix("\n").isprintable()


@pytest.mark.parametrize("kid", ["-" + KID[1:], "--" + KID[2:]])
def test_the_id_of_a_trusted_key_may_begin_with_a_hyphen(approved: Files, verify: Verifier, kid: str) -> None:
    assert verify(approved, "--trust", KID, "--trust", kid) == 0
    assert verify(approved, f"--trust={kid}") == 1
    assert verify(approved, "--trust", kid) == 1
    with pytest.raises(SystemExit) as left:  # an option is no id
        verify(approved, "--trust", "--json")
    assert left.value.code == 2


@pytest.mark.parametrize(
    "text",
    ['{"n":99999999999999999999}', '{"n":NaN}', '{"n":Infinity}', '{"n":"\\ud800"}', '{"\\ud800":1}',
     '{"n":' + "[" * 5000 + "]" * 5000 + "}", '{"n":' + "9" * 5000 + "}", '{"n":1e999}'],
    ids=range(8),
)  # fmt: skip
def test_json_without_a_canonical_form_is_refused_before_the_outcome_is_printed(
    approved: Files, verify: Verifier, text: str
) -> None:
    hostile = {**approved, "deployment.json": approved["deployment.json"][:-1] + b"," + text[1:].encode()}

    result = verify.result(hostile, "--trust", KID)

    assert (result["outcome"], result["code"]) == ("not_proven", "evidence.malformed")
    assert verify(hostile, "--trust", KID) == 1
    assert verify.output.startswith("NOT PROVEN  evidence.malformed: ")


# -- misused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["/nowhere"],
        [".", "--bundle", "x"],
        ["--bundle", "x", "--envelope", "y"],
        ["--bundle", "/nowhere", "--envelope", "y", "--keys", "z"],
        ["ledger", "/nowhere/export"],
        ["ledger", "/nowhere/export", "--keys", "/nowhere/keys"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_has_its_own_exit_code(verify: Verifier, argv: list[str]) -> None:
    assert verify.run(*argv) == 2
    assert verify.output == ""


def test_a_file_that_is_no_tar_is_malformed(verify: Verifier, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)

    assert verify.run(str(tmp_path / "x.tar"), "--json") == 1
    assert json.loads(verify.output)["code"] == "evidence.malformed"
