"""An incident whose replay result must not depend on the hash seed, time zone, locale or Python version.

The bundle and its result are files in ``golden/``.

``python -m tests.engine.replay.everywhere`` rewrites both files. Run it only when results change by design.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from byteor.engine.compiler import compile_plan, encode
from byteor.engine.replay import Frame, Record, build_incident, encode_frame, encode_journal
from tests.engine.replay.replays import DOCUMENTS

GOLDEN = Path(__file__).parent / "golden"
BUNDLE, RESULT = GOLDEN / "everywhere.tar.gz", GOLDEN / "everywhere.result.json"
PLAN: dict[str, Any] = {
    "plan_v": 1,
    "name": "orders",
    "target": "lane_graph",
    "lane_graph": {
        "ingress": ["web", "app"],
        "egress": ["clean", "audit", "raw"],
        "stages": [
            {"id": "check", "op": "dataguard_check"},
            {"id": "mask", "op": "dataguard_redact"},
            {"id": "both", "op": "dataguard_fused"},
            {"id": "notify", "op": "http_post:http://127.0.0.1:9/hook"},
        ],
        "connections": [
            {"from": source, "to": target}
            for source, target in (
                ("web", "check"), ("app", "check"), ("check", "mask"), ("mask", "clean"), ("web", "both"),
                ("both", "audit"), ("app", "notify"), ("notify", "raw"),
            )
        ],
    },
}  # fmt: skip
CONFIG = {
    "check": {"schema": {"required": ["id"], "properties": {"price": {"multipleOf": 0.01, "maximum": 1e20}}}},
    "mask": {"rules": ["card:hash", "name:replace_with=İ", "notes.secret:drop"]},
    "both": {"schema": {"properties": {"name": {"pattern": "^[A-Zİ\u0131]"}}}, "rules": ["card:drop"]},
}


def _payload(number: int) -> bytes:
    match number % 5:
        case 0:
            return b'{"id": %d, "price": 19.99, "card": "%016d"}' % (number, number)
        case 1:
            return f'{{"id": {number}, "name": "İstanbul \u0131", "notes": {{"secret": 1, "kept": 1e3}}}}'.encode()
        case 2:
            return b'{"price": 0.001, "id": 1234567890123456789}'
        case 3:
            return b'{"id": 1, "id": 2}'
    return b"\xff not json"


def make() -> bytes:
    """Build the bundle. The times of ``web`` jump back once, and the records of ``app`` are not in sequence order."""
    web = [Record(number + number // 40, 1_000 * (number % 50), _payload(number)) for number in range(100)]
    app = [Record(7 * number % 100, 500 * number, _payload(number + 1)) for number in range(100)]
    expected = encode_frame(Frame(0, _payload(0))) + encode_frame(Frame(1, b"captured otherwise"))
    documents: dict[str, dict[str, Any]] = {
        **DOCUMENTS,
        "runtime_config.json": {"stage_config": CONFIG},
        "outcome.json": {"stopped": None},
    }  # fmt: skip
    spec = compile_plan(PLAN).spec
    assert spec is not None
    journals = {"web": encode_journal(web), "app": encode_journal(app)}
    return build_incident(encode(spec), documents, journals=journals, expected={"audit": expected})


def expected_result() -> Any:
    return json.loads(RESULT.read_text())


if __name__ == "__main__":
    from byteor.agent.offline_replay import replay_offline

    BUNDLE.write_bytes(make())
    done = replay_offline(BUNDLE, spec_kv=None, journal_lane=None, last_n=None, traced=None)
    RESULT.write_text(json.dumps(done.document, indent=1) + "\n")
