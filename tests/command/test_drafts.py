"""Tests of ``byteor drafts`` and ``byteor versions``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command.conftest import Terminal
from tests.worlds import plan

pytestmark = pytest.mark.django_db
YAML = """\
# Prices of the exchange.
plan_v: 1
name: quotes
target: single_ring
single_ring:
  ingress: quotes_in
  egress: quotes_out
  stages:
    - id: decode
      op: identity
    - id: check
      op: dataguard_check
      depends_on: [decode]
"""

# Aliases of aliases: more than 2,000,000 values in seven lines.
MANY = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.fixture
def quotes(tmp_path: Path) -> str:
    """Write a plan in YAML, and return its path."""
    (tmp_path / "quotes.yaml").write_text(YAML)
    return str(tmp_path / "quotes.yaml")


def test_plan_becomes_draft_then_version(terminal: Terminal, quotes: str) -> None:
    assert terminal("drafts", "apply", "-f", quotes) == (0, "Created draft quotes, revision 1\n", "")
    assert terminal("drafts", "apply", "-f", quotes) == (0, "Unchanged: draft quotes, revision 1\n", "")

    promoted = terminal("drafts", "promote", "quotes")
    assert promoted == (0, "Draft quotes, revision 1, is now version quotes:1\n", "")

    Path(quotes).write_text(YAML.replace("op: identity", "op: dataguard_redact"))
    assert terminal("drafts", "apply", "-f", quotes).out == "Updated draft quotes, revision 2\n"
    difference = terminal("drafts", "diff", "quotes").out
    assert "-single_ring.stages.0.op=identity" in difference
    assert "+single_ring.stages.0.op=dataguard_redact" in difference
    assert terminal("drafts", "promote", "quotes", "--json", "number,name").json == {"number": 2, "name": "quotes"}
    assert terminal("versions", "diff", "quotes:1", "quotes").out == difference


def test_draft_whose_plan_has_no_name_is_not_compared(terminal: Terminal, quotes: str) -> None:
    Path(quotes).write_text(YAML.replace("name: quotes\n", ""))
    assert terminal("drafts", "apply", "-f", quotes, "--name", "nameless").code == 1

    assert terminal("drafts", "diff", "nameless") == (
        1,
        "",
        "byteor: The draft's plan has no name, so it does not compile and cannot be compared.\n",
    )


def test_diagnostics_contain_line_numbers_of_yaml_file(terminal: Terminal, quotes: str) -> None:
    Path(quotes).write_text(YAML.replace("[decode]", "[decoder]"))

    found = terminal("drafts", "apply", "-f", quotes)

    assert found.code == 1
    assert found.out == "Created draft quotes, revision 1\n"
    assert f"{quotes}:13: error: " in found.err


def test_diagnostics_contain_line_numbers_of_json_file(terminal: Terminal, tmp_path: Path) -> None:
    text = json.dumps(plan(ingress="Not a name"), indent=2)
    (tmp_path / "plan.json").write_text(text)
    line = next(at for at, each in enumerate(text.splitlines(), 1) if '"ingress"' in each)

    assert f"plan.json:{line}: error: " in terminal("drafts", "apply", "-f", str(tmp_path / "plan.json")).err


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("name: quotes\nplan_v: 1\nname: other\n", 3, "The name name occurs twice."),
        ('{"name": "quotes",\n "name": "other"}', 2, "name"),
        ("name: [quotes\n", 2, "expected ',' or ']'"),
        ("- name\n", 1, "A plan must be a JSON object or a YAML mapping."),
        ("", 1, "A plan must be a JSON object or a YAML mapping."),
        ("a: &a [*a]\n", 1, "more than 64 levels"),
        ("? [a]\n: b\n", 1, "A name must be text."),
        ("name: !!python/object:os.system x\n", 1, "A value must be text, a number"),
        ("name: x\nat: !!timestamp 2026-11-29\n", 2, "A value must be text, a number"),
        ("name: x\nrate: 1e999\n", 2, "This is not a JSON value: 1e999"),
        ("name: x\nrate: !!int five\n", 2, "This is not a JSON value: five"),
        ('name: x\nrate: !!int ""\n', 2, "This is not a JSON value:"),
        ("name: x\nrate: \x07\n", 2, "special characters are not allowed"),
        (f"name: x\nrate: {'9' * 5000}\n", 2, "This is not a JSON value: 999"),
        (f'{{"rate": {"9" * 5000}}}', 1, "is not a number"),
        (MANY, 0, "values"),
    ],
)  # fmt: skip
def test_unreadable_plans_are_refused(terminal: Terminal, text: str, line: int, reason: str) -> None:
    found = terminal("drafts", "apply", "-f", "-", "--name", "x", stdin=text)

    assert found.code == 2
    assert reason in found.err
    assert not line or f"stdin:{line}: " in found.err
    assert terminal("drafts", "list", "--json").json == []


def test_yaml_1_1_booleans_and_dates_are_read_as_text(terminal: Terminal) -> None:
    text = YAML.replace("# Prices of the exchange.", "labels: {country: no, since: 2026-11-29, 'on': 'yes'}")
    assert terminal("drafts", "apply", "-f", "-", stdin=text).code == 0

    assert terminal("drafts", "show", "quotes", "--json", "plan").json["plan"]["labels"] == {
        "country": "no", "since": "2026-11-29", "on": "yes",
    }  # fmt: skip


def test_ambiguous_or_unknown_draft_is_refused_with_list_of_drafts(terminal: Terminal, world: Any) -> None:
    for name in ("one", "two"):
        terminal("drafts", "apply", "-f", "-", "--name", name, stdin=YAML)
    ids = [each["id"] for each in terminal("drafts", "list", "--json", "id").json]

    unknown = terminal("drafts", "show", "three")
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.startswith("byteor: No draft matches three. Available: two (")
    common = os_common_prefix(ids)
    ambiguous = terminal("drafts", "show", common)
    assert ambiguous.code == 2
    assert all(each in ambiguous.err for each in ids)
    assert terminal("drafts", "show", ids[0][-12:], "--json", "id").json == {"id": ids[0]}


def os_common_prefix(ids: list[str]) -> str:
    """Return the longest text with which all ids begin."""
    length = next(at for at, each in enumerate(zip(*ids, strict=True)) if len(set(each)) > 1)
    return ids[0][:length]


def test_viewer_cannot_apply_plan_and_gets_one_line_error(terminal: Terminal, world: Any) -> None:
    terminal.use(world.viewer.api.token, organization="acme", project=world.project.name, environment="dev")

    found = terminal("drafts", "apply", "-f", "-", stdin=YAML)

    assert (found.code, found.out) == (1, "")
    assert found.err.count("\n") == 1
    assert "(request " in found.err
