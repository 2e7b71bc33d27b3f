"""Tests of the command ``byteor-verify``: hostile files, unwritable output and wrong command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.canonical import canonical
from tests.engine.signing.conftest import World
from tests.verify.conftest import DECISION, Files, Verifier, export
from tests.verify.exports import KID, STRANGER

HOSTILE = "a\x1b[8A\r  approved by   ceo"


def test_text_in_evidence_cannot_imitate_or_overwrite_other_lines(makers: World, verify: Verifier) -> None:
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


def test_rejection_is_printed_as_one_printable_line(approved: Files, verify: Verifier, tmp_path: Path) -> None:
    envelope = {**json.loads(approved["envelope.json"]), HOSTILE: "\x9b"}
    assert verify({**approved, "envelope.json": canonical(envelope)}) == 1
    assert verify.output.startswith("NOT PROVEN  envelope.")
    assert verify.output.removesuffix("\n").isprintable()

    (tmp_path / "x\x1b[2K.tar").write_bytes(b"x" * 2000)
    assert verify.run(str(tmp_path / "x\x1b[2K.tar")) == 1
    assert verify.output.startswith("NOT PROVEN  evidence.malformed: x\\u001b[2K.tar: ")
    assert verify.output.removesuffix("\n").isprintable()


@pytest.mark.parametrize("kid", ["-" + KID[1:], "--" + KID[2:]])
def test_trusted_key_id_may_begin_with_hyphen(approved: Files, verify: Verifier, kid: str) -> None:
    assert verify(approved, "--trust", KID, "--trust", kid) == 0
    assert verify(approved, f"--trust={kid}") == 1
    assert verify(approved, "--trust", kid) == 1
    with pytest.raises(SystemExit) as left:  # the next option is not used as the id
        verify(approved, "--trust", "--json")
    assert left.value.code == 2


@pytest.mark.parametrize(
    "text",
    ['{"n":99999999999999999999}', '{"n":NaN}', '{"n":Infinity}', '{"n":"\\ud800"}', '{"\\ud800":1}',
     '{"n":' + "[" * 5000 + "]" * 5000 + "}", '{"n":' + "9" * 5000 + "}", '{"n":1e999}'],
    ids=range(8),
)  # fmt: skip
def test_json_without_canonical_form_is_rejected(approved: Files, verify: Verifier, text: str) -> None:
    hostile = {**approved, "deployment.json": approved["deployment.json"][:-1] + b"," + text[1:].encode()}

    result = verify.result(hostile, "--trust", KID)

    assert (result["outcome"], result["code"]) == ("not_proven", "evidence.malformed")
    assert verify(hostile, "--trust", KID) == 1
    assert verify.output.startswith("NOT PROVEN  evidence.malformed: ")


# -- output that cannot be written ------------------------------------------------------------------------------------


COMMAND = (sys.executable, "-I", "-m", "byteor.verify")


def _run(redirection: str, *argv: str) -> tuple[int, str]:
    """Run the verifier in a shell that redirects its output. Returns its exit code and stderr."""
    shell = ("bash", "-c", f'{{ "$@"; echo $? >&3; }} 3>&2 {redirection}', "-", *COMMAND)
    *errors, code = subprocess.run([*shell, *argv], capture_output=True, text=True, check=True).stderr.splitlines()
    return int(code), "\n".join(errors)


def _run_without_reader(*argv: str) -> tuple[int, str]:
    """Run the verifier with stdout as a pipe without a reader. Returns its exit code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*COMMAND, *argv], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_closed_output_does_not_change_exit_code(makers: World, approved: Files, verify: Verifier) -> None:
    for options, code in ((("--trust", KID), 0), ((), 3), (("--trust", STRANGER), 1)):
        assert verify(approved, *options) == code
        assert _run_without_reader(str(verify.export), *options) == (code, "")
    assert _run(">&-", str(verify.export)) == _run(">&- 2>&-", str(verify.export)) == (3, "")
    assert _run_without_reader("--help") == (0, "")

    credential = makers.credential()
    notes = {f"note-{number}": "x" * 1000 for number in range(200)}  # in total, larger than a pipe's buffer
    verify(export(makers, makers.bundle(approval=credential), approval=credential, record={}, **notes))
    assert _run("| head -1 >/dev/null", str(verify.export), "--trust", KID) == (0, "")


def test_exit_code_is_4_if_output_is_unwritable(approved: Files, verify: Verifier) -> None:
    verify(approved)
    for options in (("--trust", KID), ("--trust", STRANGER, "--json")):
        code, errors = _run(">/dev/full", str(verify.export), *options)
        assert (code, errors.count("\n")) == (4, 0)
        assert errors.startswith("byteor-verify: the output cannot be written: ")
    assert _run(">/dev/full", "--help")[0] == 4


def test_characters_unsupported_by_terminal_are_escaped(makers: World, verify: Verifier, tmp_path: Path) -> None:
    credential = makers.credential(issued_by="Åsa")
    record = {"decisions": [{**DECISION, "decided_by": "Åsa"}]}
    verify(export(makers, makers.bundle(approval=credential), approval=credential, record=record))

    done = subprocess.run(
        [sys.executable, "-m", "byteor.verify", str(verify.export), "--trust", KID],
        env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert "  approved by   \\xc5sa at " in done.stdout


# -- wrong usage ------------------------------------------------------------------------------------------------------


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
def test_exit_code_is_2_for_invalid_command_line_or_missing_file(verify: Verifier, argv: list[str]) -> None:
    assert verify.run(*argv) == 2
    assert verify.output == ""


def test_file_that_is_not_tar_is_malformed(verify: Verifier, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)

    assert verify.run(str(tmp_path / "x.tar"), "--json") == 1
    assert json.loads(verify.output)["code"] == "evidence.malformed"
