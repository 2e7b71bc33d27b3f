"""Test helpers that run replays."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from byteor.engine.compiler import PipelineSpec, encode
from byteor.engine.replay import (
    Frame,
    IncidentBundle,
    Record,
    ReplayOutcome,
    encode_frame,
    replay,
)

HOOK = "http_post:http://127.0.0.1:9000/hook"


RECORDS = [
    Record(1, 10, b'{"user": "ann", "bid": 1}'),
    Record(2, 11, b'{"ask": 1}'),
    Record(3, 12, b'{"bid": 3.0}'),
]


# The documents that each incident bundle must have.
DOCUMENTS: dict[str, dict[str, Any]] = {
    "spec_validation.json": {"ok": True, "description": None},
    "runtime.json": {"crate": {"name": "byteor-agent", "version": "1"}},
    "policy_audit.json": {
        "ok": True, "policy_version": 1, "mode": None, "enforced": None, "stage_failure_policy": "stop_pipeline",
        "spec_path": None,
    },
    "environment.json": {"pid": 1, "cwd": None, "args": [], "env": [], "proc_status": None},
}  # fmt: skip


type MakeRing = Callable[..., PipelineSpec]


type MakeBundle = Callable[..., IncidentBundle]


def run(bundle: IncidentBundle, **options: Any) -> ReplayOutcome:
    where: dict[str, Any] = {"created_unix_ms": 1_700_000_000_000, "bundle_dir": "/b", "policy_env": "dev"}
    return replay(bundle, **(where | options))


def frames(*items: Frame) -> bytes:
    return b"".join(encode_frame(item) for item in items)


def sha(payload: bytes) -> str:
    return f"sha256:{sha256(payload).hexdigest()}"


def replay_apart(folder: Path, spec: PipelineSpec, environment: Mapping[str, str]) -> Any:
    """Replay an unpacked bundle in a process of its own, as a worker does, and return the process's last message."""
    request = {
        "kind": "replay", "folder": str(folder), "spec_kv": encode(spec), "stage_config": None, "overrides": False,
        "only_fitting": False, "created_unix_ms": 0, "bundle_dir": "", "policy_env": "dev", "mode": "dry_run",
        "performs": False, "approval_provided": False, "journal_lane": None, "last_n": None,
        "readable": [str(folder)],
    }  # fmt: skip
    with TemporaryDirectory() as scratch, subprocess.Popen(
        [sys.executable, "-m", "byteor_cloud.captures.process"],
        env={"PATH": os.defpath, "TMPDIR": scratch, **environment}, cwd=scratch,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        *_, last = process.stdout  # read first, because closing the input would stop the process
    return json.loads(last)
