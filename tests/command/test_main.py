"""Tests of ``byteor`` as a program: other programs, broken output, interruptions, errors, locales and tables."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from unicodedata import category, east_asian_width

import pytest

import byteor
from byteor.command import main as entry
from byteor.command.output import show_list
from tests.command.conftest import Terminal
from tests.command.processes import BYTEOR, environment, run, run_on_terminal

NAMES = [
    "quotes",
    "報價管道",
    "cafe\N{COMBINING ACUTE ACCENT}s",
    "a-very-long-name-of-a-pipeline-with-many-words-in-it",
]
ID = "01990000-0000-7000-8000-00000000000"


def in_columns(text: str) -> str:
    """Return the text as a terminal shows it: one character for each column, without styles."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    cells = [each + ("\0" if east_asian_width(each) in "WF" else "") for each in text if category(each) != "Mn"]
    return "".join(cells)


@pytest.mark.parametrize(
    ("arguments", "code", "usage"),
    [
        (["agent", "--help"], 0, "usage: byteor agent [-h]"),
        (["verify", "ledger", "--help"], 0, "usage: byteor verify ledger [-h]"),
        (["replay", "--help"], 0, "usage: byteor replay [-h]"),
        (["agent", "nonsense"], 2, "byteor agent: error: "),
        (["verify", "--", "/no/such/export"], 2, "byteor verify: "),
        (["verify", "--trust"], 2, "byteor verify: error: "),
        (["replay", "/no/such/bundle"], 1, "byteor: "),
        (["agent", "upload", "--kind=snapshot", "--file=x", "--state=/no/such/state"], 1, "byteor agent: "),
    ],
)
def test_other_programs_receive_arguments_and_determine_exit_code(
    tmp_path: Path, arguments: list[str], code: int, usage: str
) -> None:
    found = run("byteor", *arguments, env=environment(tmp_path))

    assert found.returncode == code
    assert usage in (found.stderr if code else found.stdout)
    assert "Traceback" not in found.stderr


def test_command_with_closed_output_pipe_exits_1_without_message(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    for arguments in (["--help"], ["completion", "bash"], ["--version"]):
        found = run("byteor", *arguments, env=environment(tmp_path), stdout=writing)
        assert (found.returncode, found.stderr) == (1, "")


def test_full_disk_causes_exit_code_1_and_one_line_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        found = run("byteor", "--help", env=environment(tmp_path), stdout=full)
        both = run("byteor", "--help", env=environment(tmp_path), stdout=full, stderr=full)

    assert (found.returncode, found.stderr) == (
        1,
        "byteor: The output cannot be written: No space left on device.\n",
    )
    assert both.returncode == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_cause_no_errors(tmp_path: Path, closed: str) -> None:
    found = run("sh", "-c", f"byteor completion fish {closed}", env=environment(tmp_path))

    assert (found.returncode, found.stderr) == (0, "")


def test_interrupted_command_prints_interrupted_and_exits_130(tmp_path: Path) -> None:
    command = [str(BYTEOR), "drafts", "apply", "-f", "-"]
    with subprocess.Popen(
        command, env=environment(tmp_path, BYTEOR_URL="http://127.0.0.1:1", BYTEOR_TOKEN="t"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdin
        running.stdin.write("#" * 200_000)  # more than a pipe holds, so the command is reading when the write returns
        running.stdin.flush()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()

    assert (running.returncode, out, err.strip()) == (130, "", "Interrupted.")


def test_version_is_printed_and_missing_command_prints_usage(tmp_path: Path) -> None:
    version = run("byteor", "--version", env=environment(tmp_path))
    nothing, no_command = (run("byteor", *each, env=environment(tmp_path)) for each in ([], ["drafts"]))

    assert (version.returncode, version.stdout) == (0, f"byteor {byteor.__version__}\n")
    for found in (nothing, no_command):
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.startswith("Usage: byteor ")
        assert "ommands:\n" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drafs"], "No such command: drafs. Did you mean drafts? See `byteor --help`."),
        (["--jsn"], "No such option"),
        (["versions", "dif"], "Did you mean"),
        (["drafts", "show"], "Missing argument 'DRAFT'. See `byteor drafts show --help`."),
        (["audit", "list", "--limit", "0"], "See `byteor audit list --help`."),
    ],
)
def test_usage_errors_print_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    found = run("byteor", *arguments, env=environment(tmp_path))

    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert found.stderr.startswith("byteor: ")
    assert message in found.stderr


@pytest.mark.parametrize("url", ["localhost:8000", "http://127.0.0.1:99999", "http://["])
def test_invalid_server_urls_print_one_line(tmp_path: Path, url: str) -> None:
    found = run("byteor", "usage", env=environment(tmp_path, BYTEOR_URL=url, BYTEOR_TOKEN="t"))

    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert found.stderr.startswith("byteor: The server or the token is invalid: ")


@pytest.mark.django_db
def test_non_ascii_text_is_read_and_printed_in_ascii_locale(terminal: Terminal, tmp_path: Path) -> None:
    plan = '{"plan_v": 1, "name": "quotes"}'
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    name = "preis-\N{EURO SIGN}-\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert terminal("drafts", "apply", "-f", "-", "--name", name, stdin=plan).code == 1
    env = environment(tmp_path, **ascii_only)

    listed = run("byteor", "drafts", "list", "--json=name", env=env)
    refused = run(
        "byteor", "api", "POST", "/api/v1/nothing", "-d", "-", env=env, stdin=None, input=f'{{"a": "{name}"}}'
    )

    assert (listed.returncode, json.loads(listed.stdout)) == (0, [{"name": name}])
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_piped_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_list(NAMES, None, {"name": str, "state": lambda _: "active", "id": lambda _: ID}, 10)

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert len({in_columns(line).index("active") for line in lines[1:]}) == 1
    assert all(line.endswith(ID) for line in lines[1:])


TABLE = f"""
from byteor.command.output import show_list
names = {NAMES!r}
columns = {{
    "name": str, "actor": lambda _: "alice.with.a.long.address@example.com",
    "state": lambda _: "waiting for the approval of two reviewers", "id": lambda name: "{ID}" + name[0],
}}
show_list(names, None, columns, 10)
"""


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_tables_fit_terminal_and_contain_whole_names_and_short_ids(tmp_path: Path, columns: int) -> None:
    seen = run_on_terminal("python", "-c", TABLE, env=environment(tmp_path), columns=columns)

    head, *lines = map(in_columns, seen.splitlines())
    assert max(len(line.rstrip()) for line in (head, *lines)) <= columns
    starts = [head.index(title) for title in ("NAME", "ACTOR", "ID")]
    names, _, ids = (
        "".join(line[start:end].replace("\0", "").rstrip() for line in lines)
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    )
    assert names == "".join(NAMES).replace("\N{COMBINING ACUTE ACCENT}", "")
    assert ids == "".join(f"0000000{name[0]}" for name in NAMES)


def test_dumb_terminal_gets_no_escape_codes_and_colors_can_be_disabled(tmp_path: Path) -> None:
    dumb = run_on_terminal("python", "-c", TABLE, env=environment(tmp_path, TERM="dumb"))
    colorless = run_on_terminal("python", "-c", TABLE, env=environment(tmp_path, NO_COLOR="1"))

    assert "\x1b" not in dumb
    assert not re.search(r"\x1b\[[0-9;]*[349][0-9]", colorless)
    assert "quotes" in dumb
    assert "quotes" in colorless


def test_unexpected_file_errors_print_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/etc/plan.json")

    monkeypatch.setattr(entry.cli, "main", fail)

    assert entry.main(["x"]) == 1
    assert capsys.readouterr().err == "byteor: /etc/plan.json: Permission denied.\n"
