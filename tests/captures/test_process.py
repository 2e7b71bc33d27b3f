"""Tests of what an installed op can reach from the replay process, and of the memory that the process uses."""

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import encode
from byteor.engine.replay import Frame, Record
from byteor_cloud.captures import sealing
from byteor_cloud.captures.process import BODY
from tests.engine.compiler.test_ops import install
from tests.engine.replay.replays import MakeBundle, MakeRing, frames, replay_apart
from tests.engine.replay.test_ingresses import graph
from tests.memory import MIB, needs_linux, run_capture_process

STAGES = Path(__file__).parent / "reaching_stages"
FOUND = {
    b"connect": b"Forbidden", b"resolve": b"Forbidden", b"program": b"Forbidden", b"fork": b"Forbidden",
    b"print": b"None", b"read": b"''",
}  # fmt: skip
BY_NATIVE_CODE = {
    b"native socket": b"'EPERM'", b"native program": b"'EPERM'", b"native fork": b"'EPERM'",
    b"native trace": b"'EPERM'", b"native signal": b"'EPERM'", b"native io_uring": b"'EPERM'",
    b"secret": b"'EACCES'", b"parent": b"'EACCES'", b"itself": b"'EACCES'", b"other file": b"'EACCES'",
    b"own folder": b"'access returned 0'",
}  # fmt: skip


def reach(tmp_path: Path, bundle: MakeBundle, ring: MakeRing, found: Mapping[bytes, bytes]) -> Any:
    """Replay a record for each attempt, with the values of ``found`` as recorded output. Return the last message."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "reaching", {"reach": "reaching"})
    (tmp_path / "secret").write_text("key")
    spec = ring("reach")
    expected = frames(*(Frame(number, each) for number, each in enumerate(found.values())))
    bundle(spec, [Record(number, 0, attempt) for number, attempt in enumerate(found)], expected={"out": expected})
    modules = os.pathsep.join([str(site), str(STAGES)])
    return replay_apart(tmp_path / "bundle", spec, {"PYTHONPATH": modules, "SECRET": str(tmp_path / "secret")})


def test_python_code_of_op_cannot_use_network_or_processes_or_standard_streams(
    tmp_path: Path, bundle: MakeBundle, ring: MakeRing
) -> None:
    message = reach(tmp_path, bundle, ring, FOUND)

    assert message["outcome"]["result"]["divergence"] is None
    assert message["outcome"]["result"]["egress"]["out"]["records"] == len(FOUND)


@pytest.mark.skipif(
    None in sealing.in_force().values(), reason=f"this system does not seal everything: {dict(sealing.in_force())}"
)
def test_native_code_of_op_cannot_use_network_or_processes_or_foreign_files(
    tmp_path: Path, bundle: MakeBundle, ring: MakeRing
) -> None:
    message = reach(tmp_path, bundle, ring, BY_NATIVE_CODE)

    assert message["outcome"]["result"]["divergence"] is None
    assert message["outcome"]["result"]["egress"]["out"]["records"] == len(BY_NATIVE_CODE)
    assert not (tmp_path / "secret.new").exists()


@needs_linux
def test_replay_over_memory_limit_is_refused(tmp_path: Path, bundle: MakeBundle, ring: MakeRing) -> None:
    assert reach(tmp_path, bundle, ring, {b"allocate": b""}) == {
        "refused": "more than 256 MiB of memory would be needed"
    }


@needs_linux
def test_large_trace_is_truncated_within_size_and_memory_limits(tmp_path: Path, bundle: MakeBundle) -> None:
    chain = ["in", *(f"s{number}" for number in range(64)), "out"]
    spec = graph(" ".join(f"{source}>{target}" for source, target in pairwise(chain)))
    payload = json.dumps({"text": "x" * 65_000}).encode()
    bundle(spec, [Record(1, 0, payload) for _ in range(16)])
    request: dict[str, Any] = {
        "kind": "trace", "folder": str(tmp_path / "bundle"), "spec_kv": encode(spec), "stage_config": None,
        "overrides": False, "only_fitting": False, "indexes": {}, "sequence": 1, "ingress": None, "after": None,
        "max_bytes": 3 * MIB, "readable": [str(tmp_path / "bundle")],
    }  # fmt: skip
    (tmp_path / "scratch").mkdir()

    line, grown = run_capture_process(request, tmp_path / "scratch")

    assert line.startswith(BODY), line[:500]
    body = json.loads(line.removeprefix(BODY))
    assert 3 * MIB < len(line) <= 4 * MIB
    assert (body["truncated"], body["next_after"]) == (True, len(body["records"][0]["steps"]) - 1)
    assert grown < 64 * MIB
