"""The benchmark of regressions: two configurations in lockstep, and regressions of many fixtures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from byteor.engine.replay import IncidentBundle, Record, encode_journal, replay
from byteor.engine.replay.lockstep import find_differences
from byteor.engine.replay.side_run import Side
from tests.bench.replay import CONFIG, quotes, ring
from tests.bench.results import Row, ratio

RECORDS = 100_000
FIXTURES, RECORDS_OF_FIXTURE = 1_000, 1_000
NOW = CONFIG
NEXT = {**CONFIG, "s1": {"rules": ["email:hash", "user:mask=4:2:*"]}}
OPS = ["dataguard_check", "dataguard_redact"]


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def run_engine(rounds: int) -> list[Row]:
    """Compare the processor time of the lockstep with that of two plain replays, and grouping with both replays."""
    with tempfile.TemporaryDirectory(prefix="byteor-bench-regression-") as name:
        journal = Path(name, "in.bin")
        journal.write_bytes(encode_journal(Record(at, at, each) for at, each in enumerate(quotes(RECORDS))))
        spec = ring(OPS)
        bundle = IncidentBundle(spec, "", {}, {"in": journal}, {})
        plain = partial(replay, bundle, created_unix_ms=0, bundle_dir="", policy_env="")
        works: dict[str, Callable[[], object]] = {
            "lockstep, all differ": lambda: find_differences(bundle, Side(spec, NEXT), Side(spec, NOW)),
            "lockstep, all equal": lambda: find_differences(bundle, Side(spec, NOW), Side(spec, NOW)),
            "two replays": lambda: [plain(stage_config=config) for config in (NOW, NEXT)],
        }
        rates: dict[str, list[float]] = {work: [] for work in works}
        costs: dict[str, list[float]] = {"grouping": [], "replays": []}
        for number in range(1, rounds + 1):
            seconds = {work: _cpu_seconds(function) for work, function in works.items()}
            for work, taken in seconds.items():
                rates[work].append(RECORDS / taken)
            costs["replays"].append(seconds["two replays"])
            costs["grouping"].append(seconds["lockstep, all differ"] - seconds["lockstep, all equal"])
            shown = "  ".join(f"{work} {found[-1]:,.0f}/s" for work, found in rates.items())
            print(f"  regression round {number}  {shown}", flush=True)
        return [
            ratio("lockstep, all differ / two replays", rates, goal=0.8),
            ratio("lockstep, all equal / two replays", rates, goal=0.8),
            ratio("grouping / replays", costs, goal=0.5, is_most=True),
        ]


def run_service(fixtures: int = FIXTURES) -> list[Row]:
    """Measure a regression of many fixtures in this process, and the same regression again."""
    from apps.releases.models import Regression
    from tests.bench.regression_data import prepare, run_candidate

    world, now, candidate = prepare(fixtures, RECORDS_OF_FIXTURE)
    rows = []
    for name, goal in (("first run", 60.0), ("the same again", 1.0)):
        began = time.perf_counter()
        regression = run_candidate(world, candidate, now)
        took = time.perf_counter() - began
        found = Regression.objects.get(pk=regression.pk)
        print(
            f"  regression {name}: {took:.2f} s, {found.computed} computed, {found.reused} reused,"
            f" {len(found.groups)} groups, {found.status}",
            flush=True,
        )
        rows.append(Row(f"{fixtures:,} fixtures, {name}", took, goal, " s", is_most=True))
    return rows
