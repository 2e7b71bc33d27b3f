from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest

from byteor.engine.compiler import PipelineSpec, RingStage, SingleRing, encode
from byteor.engine.replay import (
    IncidentBundle,
    Record,
    build_incident,
    encode_journal,
    extract_incident,
    validate_incident,
)

type MakeRing = Callable[..., PipelineSpec]
type MakeBundle = Callable[..., IncidentBundle]


@pytest.fixture
def ring() -> MakeRing:
    def make(*ops: str, shards: int = 1, shard_key: str | None = None) -> PipelineSpec:
        stages = tuple(RingStage(f"s{index}", op) for index, op in enumerate(ops))
        ordering: Literal["strict", "per_key"] = "per_key" if shards > 1 else "strict"
        return PipelineSpec(
            "quotes", SingleRing("in", "out", shards, ordering, "single", "dedicated", shard_key, stages)
        )

    return make


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    """Return the JSON documents that each bundle must have."""
    return {
        "spec_validation.json": {"ok": True, "description": None},
        "runtime.json": {"crate": {"name": "byteor-agent", "version": "1"}},
        "policy_audit.json": {
            "ok": True,
            "policy_version": 1,
            "mode": None,
            "enforced": None,
            "stage_failure_policy": "stop_pipeline",
            "spec_path": None,
        },
        "environment.json": {"pid": 1, "cwd": None, "args": [], "env": [["A", "1"]], "proc_status": None},
    }


@pytest.fixture
def bundle(tmp_path: Path, documents: dict[str, dict[str, Any]]) -> MakeBundle:
    """Return a function that builds the archive of a bundle, unpacks it and checks it."""

    def make(
        spec: PipelineSpec,
        records: Sequence[Record] | bytes = (),
        *,
        expected: Mapping[str, bytes] | None = None,
        lane: str = "in",
        stage_config: dict[str, Any] | None = None,
    ) -> IncidentBundle:
        if stage_config is not None:
            documents["runtime_config.json"] = {"stage_config": stage_config}
        journal = records if isinstance(records, bytes) else encode_journal(records)
        packed = build_incident(encode(spec), documents, journals={lane: journal}, expected=expected)
        root = tmp_path / "bundle"
        root.mkdir()
        extract_incident(BytesIO(packed), root)
        return validate_incident(root)

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an empty folder next to a file that a hostile archive could overwrite."""
    (tmp_path / "outside").write_bytes(b"untouched")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"
