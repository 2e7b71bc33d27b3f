"""Tests of the package ``byteor``: the start of its commands, and its version, which the service shares."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import byteor
import byteor_cloud
from byteor_cloud import command_line

ROOT = Path(__file__).parents[2]
HEAVY = ("requests", "cryptography", "jsonschema_rs", "byteor.engine")


@pytest.mark.parametrize("command", ["byteor.agent.cli", "byteor.verify.cli"])
@pytest.mark.parametrize("options", [["--help"], ["--nothing"]])
def test_help_and_usage_errors_load_no_heavy_modules(command: str, options: list[str]) -> None:
    """Loading the modules that a command needs takes much longer than printing the help."""
    code = f"""
import sys
from {command} import main
try:
    main({options})
finally:
    print("loaded:", [name for name in {HEAVY} if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.stdout.splitlines()[-1] == "loaded: []"
    assert ended.returncode == (0 if options == ["--help"] else 2)


def test_package_version_is_same_in_service_and_docs() -> None:
    service = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert f"byteor=={byteor.__version__}" in service["dependencies"]
    assert service["version"] == byteor_cloud.__version__ == byteor.__version__
    assert f"/agent/byteor-{byteor.__version__}-py3-none-any.whl" in (ROOT / "docs/terminal.md").read_text()


@pytest.mark.parametrize("option", ["version", "--version"])
def test_manage_py_prints_version_of_service(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Django would print its own version."""
    assert command_line.run(["manage.py", option]) == 0

    assert capsys.readouterr().out == f"byteor-cloud {byteor.__version__}\n"
