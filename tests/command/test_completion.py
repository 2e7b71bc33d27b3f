"""Tests of the scripts of ``byteor completion`` and of their completions."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from apps.pipelines.services import drafts
from byteor.command import completing
from byteor.command.main import COMMANDS
from tests.command.conftest import Terminal
from tests.command.processes import environment, run
from tests.patience import PATIENCE_S
from tests.worlds import PLAN

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
ASK = """
    COMP_WORDS=({words}) COMP_CWORD={last}
    _byteor_completion byteor
    echo "${{COMPREPLY[@]}}"
"""


def split(line: str) -> list[str]:
    """Split a line as Bash does: at spaces, and at colons and equals signs, which are words of their own."""
    words = re.findall(r"(?:\\.|[^\s:=\\])+|[:=]+", line)
    return [*words, *([""] if re.search(r"(?<!\\) $", line) else [])]


def in_bash(folder: Path, *lines: str, before: str = "", **variables: str) -> list[str]:
    """Complete each line with the script in Bash. Return one text for each line, which contains all its completions.

    Nothing must be printed to stderr.
    """
    script = 'eval "$(byteor completion bash)"\n' + before
    for line in lines:
        words = split(line)
        script += ASK.format(words=" ".join(map(shlex.quote, words)), last=len(words) - 1)
    found = run("bash", "--norc", "-c", script, env=environment(folder, **variables), cwd=folder)
    assert found.stderr == ""
    return found.stdout.splitlines()


@needs_bash
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    expected = {
        "byteor ": " ".join(COMMANDS),
        "byteor ver": "versions verify",
        "byteor drafts pr": "preview promote",
        "byteor completion ": "bash zsh fish",
        "byteor drafts list --js": "--json",
        "byteor audit list --outcome ": "success denied error",
        "byteor audit list --outcome=d": "denied",
        "byteor nonsense x": "",
        "byteor drafts show ": "",
        "byteor drafts show -c 'un": "",
    }
    assert dict(zip(expected, in_bash(tmp_path, *expected), strict=True)) == expected


@needs_bash
def test_bash_inserts_completions_exactly_as_printed(tmp_path: Path) -> None:
    (tmp_path / "ab").touch()  # must not replace a*b
    lines = ["plain,two\\ words", "plain,\\$\\(touch\\ stolen\\)", "plain,a*b", "plain,a,b"]
    replaced = f"byteor() {{ printf '%s\\n' {' '.join(map(shlex.quote, lines))}; }}\n"

    assert in_bash(tmp_path, "byteor drafts show ", before=replaced) == ["two\\ words \\$\\(touch\\ stolen\\) a*b a,b"]


@needs_bash
def test_failed_completion_prints_nothing(tmp_path: Path) -> None:
    line = "byteor drafts show q"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert in_bash(tmp_path, line, BYTEOR_URL=url) == [""]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()  # without a token, the server was not contacted
    (tmp_path / "config" / "byteor").mkdir(parents=True)
    (tmp_path / "config" / "byteor" / "config.json").write_text("{")
    assert in_bash(tmp_path, line, BYTEOR_URL="nonsense", BYTEOR_TOKEN="t") == [""]


class Tab:
    """Completes lines in this process, as the script for Bash does in a new process."""

    def __init__(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        self._terminal, self._monkeypatch = terminal, monkeypatch

    def __call__(self, line: str) -> list[str]:
        words = split(line)
        self._monkeypatch.setenv("_BYTEOR_COMPLETE", "bash_complete")
        self._monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        self._monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        code, out, err = self._terminal()
        assert (code, err) == (0, "")
        return [each.removeprefix("plain,") for each in out.splitlines() if each]


@pytest.fixture
def tab(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Tab:
    """Return a function that completes a line. Raise the time limit of completions."""
    monkeypatch.setattr(completing, "MOST_S", PATIENCE_S)
    return Tab(terminal, monkeypatch)


@pytest.mark.django_db
def test_names_from_server_are_completed_as_one_word(tab: Tab, world: Any) -> None:
    for name in ("quotes", "quotes-eu", "two words", "$(touch stolen)", "a*b", "preis-\N{EURO SIGN}"):
        drafts.create_draft(environment=world.dev, actor=world.operator.actor, name=name, plan=PLAN)
    world.version()

    assert sorted(tab("byteor drafts show qu")) == ["quotes", "quotes-eu"]
    assert tab("byteor drafts show two") == tab("byteor drafts show two\\ ") == ["two\\ words"]
    assert tab("byteor drafts show a") == ["a\\*b"]
    assert tab("byteor drafts show pre") == ["preis-\\\N{EURO SIGN}"]
    [escaped] = tab("byteor drafts show \\$")
    assert shlex.split(escaped) == ["$(touch stolen)"]
    assert tab("byteor versions show quotes:") == ["1"]
    assert tab("byteor versions diff quotes:1 quo") == ["quotes:1"]
    assert tab("byteor drafts list --env st") == tab("byteor drafts show --env=st") == ["staging"]
    assert tab("byteor drafts show --env prod q") == []


@pytest.mark.django_db
def test_completion_reads_bounded_number_of_names(tab: Tab, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byteor.command.session.MOST_COMPLETED", 2)
    for name in ("a1", "a2", "a3"):
        drafts.create_draft(environment=world.dev, actor=world.operator.actor, name=name, plan=PLAN)

    assert sorted(tab("byteor drafts show a")) == ["a2", "a3"]  # the newest


@pytest.mark.django_db
def test_no_names_are_completed_if_server_does_not_respond(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completing, "MOST_S", 0.1)
    monkeypatch.setenv("BYTEOR_TOKEN", "t")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BYTEOR_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert tab("byteor drafts show q") == []
    assert tab("byteor drafts show q") == []  # the server has stopped


@pytest.mark.parametrize(
    ("shell", "words", "word", "expected"),
    [
        ("zsh", "byteor versions di", "2", ["plain", "diff", "Compare two versions."]),
        ("fish", "byteor versions di", "di", ["plain,diff\tCompare two versions."]),
    ],
)
def test_commands_are_completed_for_zsh_and_fish(
    tmp_path: Path, shell: str, words: str, word: str, expected: list[str]
) -> None:
    script = run("byteor", "completion", shell, env=environment(tmp_path))
    asked = environment(tmp_path, _BYTEOR_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=word)
    found = run("byteor", env=asked)

    assert (script.returncode, found.returncode, found.stderr) == (0, 0, "")
    assert "_BYTEOR_COMPLETE" in script.stdout
    assert found.stdout.splitlines() == expected


def test_completion_imports_neither_client_nor_commands(tmp_path: Path) -> None:
    program = "import json, sys; from byteor.command.main import main; main([]); print(json.dumps([*sys.modules]))"
    asked = environment(tmp_path, _BYTEOR_COMPLETE="bash_complete", COMP_WORDS="byteor\ndr", COMP_CWORD="1")
    found = run("python", "-c", program, env=asked)

    names, modules = found.stdout.splitlines()
    assert names == "plain,drafts"
    assert {"rich", "httpx2", "msgspec", "byteor.client", "byteor.command.drafts"}.isdisjoint(json.loads(modules))
