"""The benchmark of regressions: two configurations in lockstep, many fixtures, and the page of many groups."""

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
PAGE_GROUPS = 1_000  # each of 100 fixtures has one differing record in each group
NOW = CONFIG
NEXT = {**CONFIG, "s1": {"rules": ["email:hash", "user:mask=4:2:*"]}}
OPS = ["dataguard_check", "dataguard_redact"]


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def run_engine(rounds: int) -> list[Row]:
    """Compare the processor time of the lockstep and of grouping with that of two plain replays."""
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
    """Measure three regressions of many fixtures in this process, and the page of a regression with many groups.

    The second regression is the same as the first. The third has one more fixture.
    """
    from apps.fleet.models import Agent
    from apps.releases.models import Regression
    from tests.bench.regression_data import add, measure_page, prepare, run_candidate

    world, now, candidate = prepare(fixtures, RECORDS_OF_FIXTURE)
    rows, computed = [], {}
    for name, goal in (("first run", 60.0), ("the same again", 1.0), ("one fixture more", 1.0)):
        if name == "one fixture more":
            add(Agent.objects.get(), now, [fixtures], RECORDS_OF_FIXTURE)
        began = time.perf_counter()
        regression = run_candidate(world, candidate, now)
        took = time.perf_counter() - began
        found = Regression.objects.get(pk=regression.pk)
        computed[name] = found.computed
        print(
            f"  regression {name}: {took:.2f} s, {found.computed} computed, {found.reused} reused,"
            f" {len(found.groups)} groups, {found.status}",
            flush=True,
        )
        if name != "one fixture more":
            rows.append(Row(f"{fixtures:,} fixtures, {name}", took, goal, " s", is_most=True))
    rows.append(Row("verdicts computed for one fixture more", computed["one fixture more"], 1, is_most=True))
    milliseconds, queries = measure_page(world, now, candidate, PAGE_GROUPS)
    print(f"  regression page of {PAGE_GROUPS:,} groups: {milliseconds:.0f} ms, {queries} queries", flush=True)
    rows.append(Row(f"page of a regression with {PAGE_GROUPS:,} groups", milliseconds, 300, " ms", is_most=True))
    rows.append(Row("queries of this page", queries, 15, is_most=True))
    return rows
