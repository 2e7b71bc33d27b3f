"""What an op of an installed package can reach from the process of a replay: no network, no program, not the worker."""

import os
from pathlib import Path

from byteor_cloud.engine.replay import Frame, Record
from tests.engine.compiler.test_ops import install
from tests.engine.replay.replays import MakeBundle, MakeRing, frames, replay_apart

STAGES = Path(__file__).parent / "reaching_stages"
FOUND = {
    b"connect": b"Forbidden", b"resolve": b"Forbidden", b"program": b"Forbidden", b"fork": b"Forbidden",
    b"print": b"None", b"read": b"''",
}  # fmt: skip


def test_op_reaches_nothing_outside_its_process(tmp_path: Path, bundle: MakeBundle, ring: MakeRing) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "reaching", {"reach": "reaching"})
    spec = ring("reach")
    expected = frames(*(Frame(number, found) for number, found in enumerate(FOUND.values())))
    records = [Record(number, 0, attempt) for number, attempt in enumerate(FOUND)]
    bundle(spec, records, expected={"out": expected})

    told = replay_apart(tmp_path / "bundle", spec, {"PYTHONPATH": os.pathsep.join([str(site), str(STAGES)])})

    assert told["outcome"]["result"]["divergence"] is None
    assert told["outcome"]["result"]["egress"]["out"]["records"] == len(FOUND)
