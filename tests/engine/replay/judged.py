"""Judges cases. Tests run it in several processes and compare the judgments.

``python -m tests.engine.replay.judged FILE`` judges the cases in a JSON file and prints the judgments as JSON.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from byteor.engine.compiler import decode, encode
from byteor.engine.replay import Golden, IncidentBundle, Record, Selected, Side, encode_journal, judge_fixture
from byteor.engine.replay.verdicts import run_fixture


def as_json(old: Side, new: Side, journals: dict[str, list[Record]]) -> dict[str, Any]:
    """Return a case as JSON data: a baseline (``old``), a candidate (``new``), and journals."""
    return {
        "sides": [{"spec_kv": encode(side.spec), "stage_config": side.stage_config} for side in (old, new)],
        "journals": {lane: base64.b64encode(encode_journal(records)).decode() for lane, records in journals.items()},
    }


def judge(cases: Sequence[Any]) -> list[Any]:
    """Return a list for each case: three judgments of the candidate, and the result of the baseline.

    The judgments are against the baseline on all records, against the baseline on the last three records, and against
    the baseline's result. If the baseline has no result, the last judgment and the result are missing.
    """
    return [_judge(each) for each in cases]


def _judge(case: Any) -> Any:
    old, new = (Side(decode(side["spec_kv"]), side["stage_config"]) for side in case["sides"])
    with TemporaryDirectory() as folder:
        paths = {}
        for lane, content in case["journals"].items():
            paths[lane] = Path(folder) / f"{lane}.bin"
            paths[lane].write_bytes(base64.b64decode(content))
        bundle = IncidentBundle(old.spec, "", {}, paths, {})
        found = [asdict(judge_fixture(bundle, new, old, Selected(None, last_n))) for last_n in (None, 3)]
        run = run_fixture(bundle, old, Selected())
        if run.result is not None:
            found.append(asdict(judge_fixture(bundle, new, Golden([run.result], old), Selected())))
            found.append(run.result.as_json())
    return found


if __name__ == "__main__":
    print(json.dumps(judge(json.loads(Path(sys.argv[1]).read_text()))))
