"""What the program ``byteor-verify`` prints: hostile texts stay harmless, and misuse is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byteor_cloud.engine.delivery.encoding import canonical
from tests.engine.delivery.conftest import World
from tests.verify.conftest import Files, Verifier, export
from tests.verify.exports import KID

HOSTILE = "a\x1b[8A\r  approved by   ceo"


def test_what_nobody_signed_cannot_write_over_what_is_proven(makers: World, verify: Verifier) -> None:
    told = {HOSTILE: "\x9b8A\n\u202eb\u2028\x7f"}
    credential = makers.credential(issued_by="ada\n  approved by   ceo")
    files = export(makers, makers.bundle(approval=credential), approval=credential, **told)

    assert verify(files, "--trust", KID) == 0

    lines = verify.said.split("\n")
    assert all(line.isprintable() for line in lines)
    assert [line[:16] for line in lines if "approved by" in line[:16]] == ["  approved by   "]
    assert lines[1].startswith("  approved by   ada\\u000a  approved by   ceo at ")
    assert "  not signed    a\\u001b[8A\\u000d  approved by   ceo: " in verify.said
    assert "\\u009b8A" in verify.said
    assert verify.told(files)["unsigned"] == told
    assert verify.said.strip("\n").isprintable()


def test_a_refusal_is_one_printable_line(good: Files, verify: Verifier, tmp_path: Path) -> None:
    envelope = {**json.loads(good["envelope.json"]), HOSTILE: "\x9b"}
    assert verify({**good, "envelope.json": canonical(envelope)}) == 1
    assert verify.said.startswith("NOT PROVEN  envelope.")
    assert verify.said.removesuffix("\n").isprintable()

    (tmp_path / "x\x1b[2K.tar").write_bytes(b"x" * 2000)
    assert verify.run(str(tmp_path / "x\x1b[2K.tar")) == 1
    assert verify.said.startswith("NOT PROVEN  evidence.malformed: x\\u001b[2K.tar: ")
    assert verify.said.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    "text",
    ['{"n":99999999999999999999}', '{"n":NaN}', '{"n":Infinity}', '{"n":"\\ud800"}', '{"\\ud800":1}',
     '{"n":' + "[" * 5000 + "]" * 5000 + "}", '{"n":' + "9" * 5000 + "}", '{"n":1e999}'],
    ids=range(8),
)  # fmt: skip
def test_what_has_no_spelling_is_refused_before_anything_is_said(good: Files, verify: Verifier, text: str) -> None:
    """It must not end the program after it said PROVEN."""
    hostile = {**good, "deployment.json": good["deployment.json"][:-1] + b"," + text[1:].encode()}

    told = verify.told(hostile, "--trust", KID)

    assert (told["outcome"], told["code"]) == ("not_proven", "evidence.malformed")
    assert verify(hostile, "--trust", KID) == 1
    assert verify.said.startswith("NOT PROVEN  evidence.malformed: ")


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
def test_misuse_is_told_apart(verify: Verifier, argv: list[str]) -> None:
    assert verify.run(*argv) == 2
    assert verify.said == ""


def test_no_archive_of_ours_is_malformed(verify: Verifier, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)

    assert verify.run(str(tmp_path / "x.tar"), "--json") == 1
    assert json.loads(verify.said)["code"] == "evidence.malformed"
