"""A terminal in which tests run ``byteor`` commands against a served application."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from byteor.command.main import main
from tests.client.live import served


class Output(NamedTuple):
    """The exit code and the printed output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """Runs commands in this process, by default in the context that ``use`` stored."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self._monkeypatch = monkeypatch

    def use(self, token: str | None, *, organization: str = "", project: str = "", environment: str = "") -> None:
        """Store a context with this token as the current one, instead of all other contexts."""
        context = {
            "url": self.url, "token": token, "organization": organization, "project": project,
            "environment": environment,
        }  # fmt: skip
        file = Path(os.environ["XDG_CONFIG_HOME"]) / "byteor" / "config.json"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps({"current": "test", "contexts": {"test": context}}))

    def __call__(self, *arguments: str, stdin: str = "") -> Output:
        """Run a command to its end. Its input and output are not a terminal, so the command cannot prompt."""
        source = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        self._monkeypatch.setattr(sys, "stdin", source)
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main(arguments)
        return Output(code, out.getvalue(), err.getvalue())


@pytest.fixture
def terminal(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Serve the application, and yield a terminal of the world's operator, who works in its ``dev`` environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BYTEOR_URL", "BYTEOR_TOKEN", "BYTEOR_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    with served() as url:
        found = Terminal(url, monkeypatch)
        found.use(world.operator.api.token, organization="acme", project=world.project.name, environment="dev")
        yield found
