"""Tests of all commands: help with examples, fast imports, and JSON with all or with chosen fields."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

import byteor.command
from byteor.command.main import COMMANDS, cli
from tests.command.conftest import Terminal
from tests.command.processes import environment, run
from tests.worlds import World

# These read their own arguments, and are tested with the programs that they call.
OWN_ARGUMENTS = {"agent", "verify", "replay"}
# These print a script, never end, ask a person in a browser, or revoke the token, so their own tests run them.
WITHOUT_EXAMPLE = {"completion", "audit follow", "login", "logout"}


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Yield each command that is not a group, with its name, such as ``drafts list``."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from ((f"{name} {each}", found) for each, found in command.commands.items())
        else:
            yield name, command


LEAVES = dict(leaves())
OURS = sorted(LEAVES.keys() - OWN_ARGUMENTS)
every_command = pytest.mark.parametrize("name", OURS)


@every_command
def test_commands_have_help_with_examples_and_all_but_completion_have_json_option(name: str) -> None:
    command = LEAVES[name]
    help_text = inspect.cleandoc(command.help or "")  # Python 3.12 keeps the indentation of docstrings

    assert "\b\nExamples:\n  byteor " in help_text or "\b\nExamples:\n  echo " in help_text or "| byteor " in help_text
    assert help_text.split("\n")[0].endswith((".", ":"))
    options = {option for each in command.params for option in each.opts}
    assert "--json" in options or name == "completion"
    for each in command.params:
        assert not isinstance(each, click.Option) or each.help, each.name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_consists_of_sentences_and_its_lines_have_at_most_100_characters(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else [])]

    for each in (cli, *commands):
        assert each is not None
        prose = (each.help or "").partition("\b\nExamples:")[0].strip()
        options = [option.help or "" for option in each.params if isinstance(option, click.Option)]
        assert prose, each.name
        assert all(text.rstrip(")").endswith((".", "?")) for text in [prose.split("\n\n")[0], *options]), options
        assert max(map(len, each.get_help(click.Context(each, info_name=each.name)).splitlines())) <= 100


def test_command_modules_import_no_slow_modules(tmp_path: Path) -> None:
    modules = sorted(f"byteor.command.{each.stem}" for each in Path(byteor.command.__path__[0]).glob("*.py"))
    lazy = [each for each in modules if not each.endswith(("__init__", ".plan_files"))]  # the latter needs PyYAML
    program = f"import {', '.join(lazy)}, json, sys; print(json.dumps([*sys.modules]))"

    loaded = set(json.loads(run("python", "-c", program, env=environment(tmp_path)).stdout))

    assert set(lazy) <= loaded
    assert not loaded & {
        "rich",
        "yaml",
        "byteor.client.runtime",
        "byteor.client.models",
        "httpx2",
        "msgspec",
        "requests",
        "asyncio",
        "argparse",
    }


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(set(OURS) - WITHOUT_EXAMPLE))
def test_command_prints_json_with_all_or_chosen_fields(
    name: str, terminal: Terminal, world: World, tmp_path: Path, django_assert_num_queries: Any
) -> None:
    group = COMMANDS[name.split(maxsplit=1)[0]][0]
    arguments = import_module(f"tests.command.examples.{group}").examples(world, tmp_path)[name]
    if name != "api":  # its fields are those of the response
        with django_assert_num_queries(0):
            refused = terminal(*name.split(), *arguments, "--json", "no_such_field")
        assert (refused.code, refused.out) == (2, "")
        assert "Unknown field: no_such_field. Fields: " in refused.err

    found = terminal(*name.split(), *arguments, "--json")

    assert found.code in {0, 1}, found.err
    value = json.loads(found.out)
    rows = value if isinstance(value, list) else [value]
    assert rows, "The example finds nothing."
    if name != "api":
        first = next(iter(rows[0]))
        chosen = terminal(*name.split(), *arguments, f"--json={first}")
        if chosen.code == 0:  # some commands, such as a deletion, are refused the second time
            row = json.loads(chosen.out)
            assert list(row[0] if isinstance(row, list) else row) == [first]
