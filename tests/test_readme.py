"""The README agrees with the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from byteor_cloud.config import PREFIX, Config
from byteor_cloud.verify import cli
from byteor_cloud.verify.trust import Outcome

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_table_lists_exactly_the_settings() -> None:
    documented = re.findall(rf"^\| `{PREFIX}(\w+)` \|", README, re.MULTILINE)

    assert sorted(documented) == sorted(field.name.upper() for field in dataclasses.fields(Config))


def test_links_and_paths_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    paths = re.findall(r"`((?:apps|byteor_cloud|tests)/[\w/.]*)`", README)

    assert links
    assert paths
    assert [path for path in [*links, *paths] if not (ROOT / path).exists()] == []


def test_commands_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = {path.stem for path in (ROOT / "apps/operations/management/commands").glob("*.py")}

    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= set(targets)
    assert set(re.findall(r"manage\.py ([a-z_]+)", README)) <= commands


def test_outcomes_of_the_verifier_agree_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Outcomes and exit codes agree, and no example without named keys claims a proof."""
    told = re.findall(r"^\| `([A-Z ]+)` \(`(\w+)`\) \| (\d) \|", README, re.MULTILINE)
    calls = re.findall(r"^byteor-verify .*$", README, re.MULTILINE)

    assert {(word, Outcome(value)): int(code) for word, value, code in told} == {
        (outcome.value.replace("_", " ").upper(), outcome): code for outcome, code in cli.EXIT_CODES.items()
    }
    assert len(calls) == 3
    assert all(re.search("--(trust|keys) ", call) for call in calls)
    assert "`byteor-verify evidence.tar`" not in README
    for of in ([], ["ledger"]):
        with pytest.raises(SystemExit):
            cli.main([*of, "--help"])
        help_text = capsys.readouterr().out
        for word, _, code in told:
            assert re.search(rf"^  {word} +{code}  ", help_text, re.MULTILINE)
