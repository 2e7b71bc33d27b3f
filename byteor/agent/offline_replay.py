"""Replays an incident bundle offline, like a dry run on the server without a config bundle, or traces records."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byteor.engine.compiler import KvError, Ops, PipelineSpec, decode
from byteor.engine.replay import (
    BadInput,
    IncidentBundle,
    OutcomeStatus,
    RejectedBundle,
    Unsupported,
    extract_incident,
    parameters_of_replay,
    replay,
    trace,
    validate_incident,
)


class CannotReplay(Exception):
    """The bundle or the spec is invalid, or the records cannot be traced. The message contains the reason."""


@dataclass(frozen=True, slots=True)
class OfflineReplay:
    """The JSON to print, the problem (a failure, a divergence, or no record to trace) if there is one, and warnings."""

    document: Mapping[str, Any]
    problem: str | None
    warnings: tuple[str, ...] = ()


def replay_offline(
    bundle: Path, *, spec_kv: Path | None, journal_lane: str | None, last_n: int | None, traced: int | None
) -> OfflineReplay:
    """Replay a bundle, or trace the records with the sequence number ``traced``. Raises CannotReplay or OSError."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec = decode(spec_kv.read_bytes()) if spec_kv else None
            with bundle.open("rb") as source:
                extract_incident(source, Path(folder))
            unpacked = validate_incident(Path(folder))
            if traced is None:
                return _replay(unpacked, spec, journal_lane, last_n)
            return _trace(unpacked, spec, journal_lane, traced)
        except (KvError, RejectedBundle, BadInput, Unsupported) as error:
            raise CannotReplay(str(error)) from error


def _replay(
    bundle: IncidentBundle, spec: PipelineSpec | None, journal_lane: str | None, last_n: int | None
) -> OfflineReplay:
    outcome = replay(
        bundle,
        created_unix_ms=0,
        bundle_dir="",
        policy_env="",
        spec=spec,
        stage_config=parameters_of_replay(bundle, spec or bundle.spec),
        ops=_ops(spec or bundle.spec),
        journal_lane=journal_lane,
        last_n=last_n,
    )
    problem = outcome.error
    if outcome.status is OutcomeStatus.DIVERGED:
        at = outcome.result["divergence"]
        problem = f"the output diverges at egress {at['egress']!r}, sequence {at['sequence']}: {at['kind']}"
    return OfflineReplay(outcome.result, problem, outcome.warnings)


def _trace(bundle: IncidentBundle, spec: PipelineSpec | None, ingress: str | None, sequence: int) -> OfflineReplay:
    found = trace(
        bundle,
        sequence,
        spec=spec,
        stage_config=parameters_of_replay(bundle, spec or bundle.spec),
        ops=_ops(spec or bundle.spec),
        ingress=ingress,
    )
    return OfflineReplay(found, None if found["records"] else f"found no record with sequence number {sequence}")


def _ops(spec: PipelineSpec) -> dict[str, Any]:
    installed = Ops.installed()
    return {op: process for _, op in spec.stages if (process := installed.process(op)) is not None}
