"""Fixtures: the export of an approved deployment, and a function that runs the verifier on an export."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.engine.delivery.bundle import BuiltBundle
from byteor_cloud.engine.delivery.encoding import canonical
from byteor_cloud.verify import cli
from tests.engine.delivery.conftest import World

EXIT_CODES = {"proven": 0, "not_proven": 1, "consistent": 3}

type Files = dict[str, bytes]
type Change = Callable[[World, Files], Files]


def export(makers: World, built: BuiltBundle, *, approval: str | None = None, **unsigned: object) -> Files:
    """Create the files that the server exports for a deployment; ``unsigned`` are fields of deployment.json."""
    signed = {k: v for k, v in built.manifest.document().items() if k not in {"manifest_v", "files"}}
    files = {
        "deploy-bundle.tar": built.tar,
        "envelope.json": canonical(makers.envelope(built)),
        "signing_keys.json": canonical(makers.keyset.document()),
        "deployment.json": canonical({**signed, "bundle_hash": built.bundle_hash, **unsigned}),
    }
    if approval is not None:
        files["approval.cred"] = approval.encode()
    return files


@dataclass
class Verifier:
    """Runs ``byteor-verify`` in a temporary folder, and keeps its latest output."""

    folder: Path
    capsys: Any
    output: str = ""

    def __call__(self, files: Files, *options: str) -> int:
        for file in self.folder.iterdir():
            if file.suffix != ".trusted":
                file.unlink()
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        return self.run(str(self.folder), *options)

    def run(self, *argv: str) -> int:
        code = cli.main(argv)
        self.output = self.capsys.readouterr().out
        return code

    def result(self, files: Files, *options: str) -> dict[str, Any]:
        """Run with ``--json`` and return the output, after checking that the exit code matches the outcome."""
        code = self(files, "--json", *options)
        result: dict[str, Any] = json.loads(self.output)
        assert code == EXIT_CODES[result["outcome"]]
        return result


@pytest.fixture(scope="session")
def makers() -> World:
    """Return the keys of an organization, and functions that sign with them."""
    return World()


@pytest.fixture
def approved(makers: World) -> Files:
    """Return the export of an approved deployment."""
    credential = makers.credential()
    return export(makers, makers.bundle(approval=credential), approval=credential, requested_by="bob@example.com")


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verifier:
    """Return a function that runs the verifier."""
    return Verifier(tmp_path, capsys)
