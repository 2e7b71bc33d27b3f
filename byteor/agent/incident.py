"""Captures the running pipeline as an incident bundle (format version 1)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from byteor import __version__
from byteor.engine.canonical import Json
from byteor.engine.compiler import decode
from byteor.engine.replay import JournalReader, build_incident, encode_frame, encode_journal, read_frames
from byteor.engine.signing.bundle import OpenedBundle, open_bundle

from .configuration import AgentRuntimeConfig
from .progress import RunningBundle
from .state_folder import StateError, StateFolder


def capture(state: StateFolder, running: RunningBundle, last_n: int | None = None) -> bytes:
    """Return the running pipeline's spec, configuration, input and output as an incident bundle (.tar.gz).

    With ``last_n``, the bundle contains only the last ``last_n`` records of each journal, and only their output. The
    bundle also describes this process. Raises StateError if the state folder lacks the running bundle or its input.
    """
    tar = state.bundle(running.offer.bundle_hash)
    files = state.capture(running.offer.bundle_hash)
    if tar is None or not files:
        raise StateError("the state folder lacks the running bundle or its recorded input: restart the agent first")
    bundle = open_bundle(tar)
    journals, expected = _files_in("journal", files), _files_in("expected", files)
    if last_n is not None:
        journals, expected = _last_records(journals, expected, last_n)
    return build_incident(bundle.spec_kv.decode("ascii"), _documents(bundle), journals=journals, expected=expected)


def _last_records(
    journals: Mapping[str, bytes], expected: Mapping[str, bytes], last_n: int
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the journals and the expected frames with only the last records of each journal and their output.

    The records of each journal are in the order of a replay: by sequence, then by position. The frames of records that
    are left out are left out as well, because a replay of the bundle would otherwise diverge. If a record that is kept
    and a record that is left out have the same sequence, the frames of this sequence are left out.
    """
    kept_journals = {}
    kept, left_out = set[int](), set[int]()
    for lane, data in journals.items():
        records = sorted(JournalReader(BytesIO(data)), key=lambda record: record.sequence)
        kept_journals[lane] = encode_journal(records[-last_n:])
        kept |= {record.sequence for record in records[-last_n:]}
        left_out |= {record.sequence for record in records[:-last_n]}
    kept -= left_out
    return kept_journals, {
        egress: b"".join(encode_frame(frame) for frame in read_frames(BytesIO(data)) if frame.sequence in kept)
        for egress, data in expected.items()
    }


def _documents(bundle: OpenedBundle) -> dict[str, Json]:
    spec = decode(bundle.spec_kv)
    stages = "1 stage" if len(spec.stages) == 1 else f"{len(spec.stages)} stages"
    return {
        "spec_validation.json": {"ok": True, "description": f"{spec.name}: {stages}"},
        "runtime.json": {"crate": {"name": "byteor-agent", "version": __version__}},
        "policy_audit.json": {
            "ok": True,
            "policy_version": 1,
            "mode": "dry_run",
            "enforced": True,
            "stage_failure_policy": "stop_pipeline",
            "spec_path": "spec.kv",
        },
        "environment.json": {
            "pid": os.getpid(),
            "cwd": str(Path.cwd()),
            "args": [Path(sys.argv[0]).name],
            # Only the pipeline's own variables, without secret values. Other variables of the host may be secrets.
            "env": AgentRuntimeConfig.parse(bundle.runtime_config).shown_env(),
            "proc_status": _proc_status(),
        },
        "runtime_config.json": bundle.runtime_config,
        "outcome.json": {"stopped": None},  # null: a pipeline that failed never becomes the running one
    }


def _files_in(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    prefix = f"{folder}/"
    return {
        name.removeprefix(prefix).removesuffix(".bin"): data for name, data in files.items() if name.startswith(prefix)
    }


def _proc_status() -> str | None:
    try:
        return Path("/proc/self/status").read_text()
    except OSError:
        return None
