"""A good set of files, as an export has them, and the verifier run on them."""

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


def export(makers: World, built: BuiltBundle, *, approval: str | None = None, **told: object) -> Files:
    """What the server exports of a delivery."""
    signed = {k: v for k, v in built.manifest.document().items() if k not in {"manifest_v", "files"}}
    files = {
        "deploy-bundle.tar": built.tar,
        "envelope.json": canonical(makers.envelope(built)),
        "signing_keys.json": canonical(makers.keyset.document()),
        "deployment.json": canonical({**signed, "bundle_hash": built.bundle_hash, **told}),
    }
    if approval is not None:
        files["approval.cred"] = approval.encode()
    return files


@dataclass
class Verifier:
    """``byteor-verify`` on a folder of its own."""

    folder: Path
    capsys: Any
    said: str = ""

    def __call__(self, files: Files, *options: str) -> int:
        for file in self.folder.iterdir():
            if file.suffix != ".trusted":
                file.unlink()
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        return self.run(str(self.folder), *options)

    def run(self, *argv: str) -> int:
        code = cli.main(argv)
        self.said = self.capsys.readouterr().out
        return code

    def told(self, files: Files, *options: str) -> dict[str, Any]:
        """Its JSON; the exit code must fit."""
        code = self(files, "--json", *options)
        answer: dict[str, Any] = json.loads(self.said)
        assert code == EXIT_CODES[answer["outcome"]]
        return answer


@pytest.fixture(scope="session")
def makers() -> World:
    """The organization whose keys sign."""
    return World()


@pytest.fixture
def good(makers: World) -> Files:
    """The export of an approved deployment."""
    credential = makers.credential()
    return export(makers, makers.bundle(approval=credential), approval=credential, requested_by="bob@example.com")


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verifier:
    """Run the verifier."""
    return Verifier(tmp_path, capsys)
