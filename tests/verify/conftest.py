"""Fixtures: an organization's keys, the export of an approved deployment, and a callable that runs the verifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.canonical import Json, canonical
from byteor.engine.signing import dsse
from byteor.engine.signing.approval_record import PREDICATE_TYPE
from byteor.engine.signing.bundle import BuiltBundle
from byteor.verify import cli
from tests.engine.signing.conftest import World

EXIT_CODES = {"proven": 0, "not_proven": 1, "consistent": 3}

type Files = dict[str, bytes]
type Change = Callable[[World, Files], Files]


SPEC = b"""spec.v=1
spec.model=single_ring
spec.name=quotes
single_ring.ingress=in
single_ring.egress=out
single_ring.shards=1
single_ring.ordering=strict
single_ring.producer=single
single_ring.scheduling=dedicated
single_ring.stages.0.id=s0
single_ring.stages.0.op=identity
"""
CONFIG: Json = {
    "tuning_profile": "low-latency", "wait": "spin", "stage_config": {}, "adapters": {},
    "env": {"A": {"secret_ref": "B"}}, "snapshot": {"enabled": False},
}  # fmt: skip


def config_hash(spec: bytes = SPEC, config: Json = CONFIG, capabilities: tuple[str, ...] = ("deploy",)) -> str:
    """Compute a config hash as documented, without the code under test."""
    hashed = {**config, "spec_hash": _sha256(spec), "required_capabilities": list(capabilities)}
    # Without numbers and with only ASCII strings, this is the RFC 8785 JSON.
    return _sha256(json.dumps(hashed, sort_keys=True, separators=(",", ":")).encode())


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


DECISION: Json = {
    "user_id": "user-1", "decided_by": "ada@example.com", "decision": "approve", "comment": "looks right",
    "decided_at": "2026-10-20T08:00:00.250000Z",
}  # fmt: skip


def record_document(makers: World, **changes: object) -> Json:
    """Return the approval record of ``makers.bundle()``."""
    return {
        "org_id": "org-1", "project_id": "project-1", "environment_id": "environment-1",
        "deployment_id": "deployment-1", "approval_id": "approval-1", "status": "approved",
        "bound": {
            "spec_hash": _sha256(makers.spec_kv), "config_hash": makers.config_hash, "target": {"all": True},
            "strategy": {"kind": "all_at_once"},
        },
        "shown": {"agents": 2}, "break_glass": False, "requester_id": "user-2", "requested_by": "bob@example.com",
        "required_approvals": 1, "allow_self_approval": False, "approved_at": "2026-10-20T08:00:00.250000Z",
        "expires_at": "2026-10-20T09:00:00.250000Z", "decisions": [DECISION],
    } | changes  # fmt: skip


def signed_record(
    makers: World, bundle_hash: str, *, key: bytes | None = None, type_: str = PREDICATE_TYPE, **changes: object
) -> bytes:
    """Return ``approval.json``, signed with our active key by default."""
    return canonical(dsse.sign_claim(type_, bundle_hash, record_document(makers, **changes), key or makers.active))


def export(
    makers: World,
    built: BuiltBundle,
    *,
    approval: str | None = None,
    record: dict[str, Any] | None = None,
    **unsigned: object,
) -> Files:
    """Create the files that the server exports for a deployment without statements.

    ``approval`` is the credential. ``record`` contains arguments of ``signed_record``. If one of the two is None, its
    file is missing. ``unsigned`` are additional fields of deployment.json.
    """
    signed = {k: v for k, v in built.manifest.document().items() if k not in {"manifest_v", "files"}}
    files = {
        "deploy-bundle.tar": built.tar,
        "envelope.json": canonical(makers.envelope(built)),
        "signing_keys.json": canonical(makers.keyset.document()),
        "deployment.json": canonical({**signed, "bundle_hash": built.bundle_hash, **unsigned}),
    }
    if approval is not None:
        files["approval.cred"] = approval.encode()
    if record is not None:
        files["approval.json"] = signed_record(makers, built.bundle_hash, **record)
    return files


@dataclass
class Verifier:
    """Runs ``byteor-verify`` on files in a temporary folder, and stores the latest output."""

    folder: Path
    capsys: Any
    output: str = ""

    @property
    def export(self) -> Path:
        """The folder with the files of the latest export."""
        return self.folder / "export"

    def __call__(self, files: Files, *options: str) -> int:
        self.export.mkdir(exist_ok=True)
        for file in self.export.iterdir():
            file.unlink()
        for name, data in files.items():
            (self.export / name).write_bytes(data)
        return self.run(str(self.export), *options)

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
    return World(spec_kv=SPEC, runtime_config=CONFIG, config_hash=config_hash())


@pytest.fixture
def approved(makers: World) -> Files:
    """Return the export of an approved deployment."""
    credential = makers.credential()
    built = makers.bundle(approval=credential)
    return export(makers, built, approval=credential, record={}, requested_by="bob@example.com")


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verifier:
    """Return a callable that runs the verifier."""
    return Verifier(tmp_path, capsys)
