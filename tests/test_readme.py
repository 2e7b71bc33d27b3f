"""Tests that the README matches the code, and that manage.py prints a hint if Python is old or lacks Django."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from byteor.verify import cli
from byteor.verify.trust import VerificationOutcome
from byteor.verify.verification import EXIT_CODES
from byteor_cloud.config import PREFIX, Config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_settings_table_matches_settings() -> None:
    documented = re.findall(rf"^\| `{PREFIX}(\w+)` \|", README, re.MULTILINE)

    assert sorted(documented) == sorted(field.name.upper() for field in dataclasses.fields(Config))


def test_links_and_paths_in_readme_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    paths = re.findall(r"`((?:apps|byteor_cloud|tests)/[\w/.]*)`", README)

    assert links
    assert paths
    assert [path for path in [*links, *paths] if not (ROOT / path).exists()] == []


def test_commands_in_readme_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = {path.stem for path in (ROOT / "apps/operations/management/commands").glob("*.py")}
    make_calls = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    manage_calls = set(re.findall(r"manage\.py ([a-z_]+)", README))

    assert {"run", "serve", "test"} <= make_calls <= set(targets)
    assert {"bootstrap", "serve"} <= manage_calls <= commands


def test_commands_start_with_path_of_virtual_environment() -> None:
    """In a clean clone, a bare ``manage.py`` or ``byteor-agent`` would fail with "command not found"."""
    calls = re.findall(r"(?:^|`)([\w./ -]*(?:manage\.py|byteor-\w+) [-\w].*?)(?:`|$)", README, re.MULTILINE)

    assert len(calls) > 10
    for call in calls:
        assert re.match(r"\.venv/bin/(python manage\.py|byteor-agent|byteor-verify) ", call), call


def test_options_of_management_commands_in_readme_exist() -> None:
    calls = re.findall(r"`?\.venv/bin/python manage\.py ([a-z_]+)([^`\n]*)", README)

    assert {name for name, _ in calls} >= {"bootstrap", "verify_ledger", "export_ledger", "rotate_master_key"}
    for name, arguments in calls:
        source = (ROOT / f"apps/operations/management/commands/{name}.py").read_text()
        for option in re.findall(r"--[a-z-]+", arguments):
            assert f'"{option}"' in source, f"{name} {option}"


def test_special_terms_are_explained_in_parentheses() -> None:
    prose = " ".join(README.split())

    for term in ("SingleRing", "LaneGraph"):
        assert re.search(rf"\*\*{term}\*\* \(", prose), term
    for term in ("DSSE envelope", "in-toto statement"):
        assert prose.index(f"{term} (a standard format for ") == prose.index(term)


def test_outcome_table_matches_verifier_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The table's outcomes and exit codes are the verifier's, and every example specifies the trusted keys."""
    rows = re.findall(r"^\| `([A-Z ]+)` \(`(\w+)`\) \| (\d) \|", README, re.MULTILINE)
    calls = re.findall(r"^\.venv/bin/byteor-verify .*$", README, re.MULTILINE)

    assert {(word, VerificationOutcome(value)): int(code) for word, value, code in rows} == {
        (outcome.value.replace("_", " ").upper(), outcome): code for outcome, code in EXIT_CODES.items()
    }
    assert len(calls) == 5
    assert all(re.search("--(trust|keys) ", call) for call in calls)
    assert "byteor-verify evidence.tar`" not in README
    for subcommand in ([], ["ledger"], ["release"]):
        with pytest.raises(SystemExit):
            cli.main([*subcommand, "--help"])
        help_text = capsys.readouterr().out
        for word, _, code in rows:
            assert re.search(rf"^  {word} +{code}  ", help_text, re.MULTILINE)


def test_manage_py_parses_on_python_3_6() -> None:
    ast.parse((ROOT / "manage.py").read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("options", "preparation"),
    [(["-I"], "sys.version_info = (3, 6, 9)"), (["-I", "-S"], "")],
    ids=["old Python", "no Django"],
)
def test_manage_py_prints_one_line_hint_for_unsuitable_python(options: list[str], preparation: str) -> None:
    code = f"import sys, runpy; {preparation}\nrunpy.run_path(sys.argv[1], run_name='__main__')"

    ended = subprocess.run(
        [sys.executable, *options, "-c", code, ROOT / "manage.py", "check"], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert "run .venv/bin/python manage.py" in ended.stderr
