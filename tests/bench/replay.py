"""The benchmark of replays: speed compared with minimal loops and an old engine, ingest, memory, and a trace."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from byteor.engine.compiler import PipelineSpec, RingStage, SingleRing, encode
from byteor.engine.replay import (
    IncidentBundle,
    OutcomeStatus,
    Record,
    build_incident,
    encode_journal,
    extract_incident,
    file_digests,
    index_file,
    replay,
    trace,
    validate_incident,
)
from byteor.engine.replay.dataguard import build_guard
from byteor.engine.replay.payload import Message
from tests.bench.results import Row, ratio

OLD_COMMIT = "bea0031"
IDENTITY, GUARDED, LARGE, SMALL = 100_000, 10_000, 4_000_000, 40_000
CONFIG: dict[str, Any] = {
    "s0": {
        "schema": {
            "type": "object",
            "required": ["id", "user", "bid"],
            "properties": {
                "id": {"type": "integer"},
                "user": {"type": "string", "maxLength": 40},
                "bid": {"type": "number", "minimum": 0},
                "venue": {"enum": ["XNAS", "XNYS"]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        }
    },
    "s1": {"rules": ["email:hash", "user:mask=2:2:*"]},
}
_HEAD, _FRAME = struct.Struct("<IQQI"), struct.Struct("<IQ")

# Runs in another process with the code of the old commit, whose engine had another name. Prints a replay's CPU seconds.
_OLD = """
import io, json, pathlib, sys, time
from byteor_cloud.engine.compiler import decode
from byteor_cloud.engine.replay import IncidentBundle, replay
folder, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
spec = decode((folder / "spec.kv").read_bytes())
bundle = IncidentBundle(spec=spec, spec_hash="", documents={}, journals={"in": folder / "old.bin"}, expected={})
for _ in range(2):
    began = time.process_time()
    outcome = replay(bundle, created_unix_ms=0, bundle_dir="", policy_env="", stage_config=config)
    seconds = time.process_time() - began
    assert outcome.error is None, outcome.error
print(seconds)
"""

_RE2 = """
import re
from types import SimpleNamespace as Options
error = re.error
def compile(pattern, options): return re.compile(pattern)
"""


def run(rounds: int, large: int = LARGE) -> list[Row]:
    """Print each round's results. Return ratios of medians, a large replay's additional memory, and a trace's time."""
    with tempfile.TemporaryDirectory(prefix="byteor-bench-replay-") as name:
        folder = Path(name)
        rows = _speed(folder, "identity", ["identity"] * 4, {}, _flat(IDENTITY), rounds)
        guarded = ["dataguard_check", "dataguard_redact"]
        rows += _speed(folder, "check + redact", guarded, CONFIG, quotes(GUARDED), rounds)
        rows.append(_ingest(folder, rounds))
        return rows + _large(folder, large)


def _flat(count: int) -> list[bytes]:
    return [(b'{"id":%d,"x":"' % number).ljust(220, b"y") + b'"}' for number in range(count)]


def quotes(count: int, first: int = 0) -> list[bytes]:
    """Return different records of 222 bytes. ``first`` is the number of the first record."""
    found = (
        {"id": number, "user": f"user-{number}", "email": f"someone{number}@example.com", "bid": 19.99, "ask": 20.25,
         "qty": number % 100, "venue": "XNAS", "tags": ["a", "b", "c"], "note": "x" * 40}
        for number in range(first, first + count)
    )  # fmt: skip
    return [json.dumps(quote).encode().ljust(222) for quote in found]


def ring(ops: list[str]) -> PipelineSpec:
    """Return the spec of a ring with stages ``s0``, ``s1``, … with these ops."""
    stages = tuple(RingStage(f"s{number}", op) for number, op in enumerate(ops))
    return PipelineSpec("bench", SingleRing("in", "out", 1, "strict", "single", "dedicated", None, stages))


def _speed(
    folder: Path, name: str, ops: list[str], config: dict[str, Any], payloads: list[bytes], rounds: int
) -> list[Row]:
    """Compare a replay with the minimal loop, and with the old engine if it is available."""
    spec = ring(ops)
    records = [Record(number, number, payload) for number, payload in enumerate(payloads)]
    (folder / "spec.kv").write_text(encode(spec))
    (folder / "in.bin").write_bytes(encode_journal(records))
    (folder / "old.bin").write_bytes(encode_journal(records, version=1))
    bundle = IncidentBundle(spec, "", {}, {"in": folder / "in.bin"}, {})
    loop = f"loop of {name}"
    works: dict[str, Callable[[], float]] = {
        name: partial(_seconds, partial(_replay, bundle, config)),
        loop: partial(_seconds, partial(_loop, folder / "in.bin", ops, config)),
    }
    assert _replay(bundle, config) == _loop(folder / "in.bin", ops, config)
    if (old := _old_engine(folder)) is not None:
        works[OLD_COMMIT] = partial(_old_seconds, old, folder, config)
    rates: dict[str, list[float]] = {work: [] for work in works}
    for number in range(1, rounds + 1):
        for work, seconds in works.items():
            rates[work].append(len(payloads) / seconds())
        shown = "  ".join(f"{work} {found[-1]:,.0f}/s" for work, found in rates.items())
        print(f"  replay     round {number}  {shown}", flush=True)
    rows = [ratio(f"{name} / {loop}", rates, goal=0.85 if config else 0.6)]
    if old is not None:
        rows.append(ratio(f"{name} / {OLD_COMMIT}", rates, goal=4.0 if config else 1.0))
    return rows


def _cpu_seconds() -> float:
    """Return the processor time of this process and of the programs that it started.

    It depends less on other processes than the elapsed time does.
    """
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _seconds(work: Callable[[], object]) -> float:
    began = _cpu_seconds()
    work()
    return _cpu_seconds() - began


def _replay(bundle: IncidentBundle, config: dict[str, Any]) -> str:
    outcome = replay(bundle, created_unix_ms=0, bundle_dir="", policy_env="", stage_config=config)
    assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.error
    digest: str = outcome.result["egress"]["out"]["sha256"]
    return digest


def _identity(payload: bytes) -> bytes:
    return payload


def _loop(journal: Path, ops: list[str], config: dict[str, Any]) -> str:
    """Do only the essential work: read the journal, check its CRCs, call the stages' functions, hash the frames."""
    digest = hashlib.sha256()
    guards = (
        [guard for at, op in enumerate(ops) if (guard := build_guard(op, config.get(f"s{at}"))) is not None]
        if config
        else []
    )
    with journal.open("rb") as source:
        source.read(8)
        while head := source.read(_HEAD.size):
            length, sequence, _, crc = _HEAD.unpack(head)
            payload = source.read(length)
            if zlib.crc32(payload, zlib.crc32(head[:20])) != crc:
                raise ValueError(sequence)
            if guards:
                message: Any = Message(payload)
                for guard in guards:
                    message = guard(message)
                payload = message.payload
            else:
                payload = _identity(_identity(_identity(_identity(payload))))
            digest.update(_FRAME.pack(len(payload), sequence) + payload)
    return f"sha256:{digest.hexdigest()}"


def _old_engine(folder: Path) -> Path | None:
    """Return a folder with the code of the old commit, or None if this checkout does not contain that commit."""
    code = folder / "old"
    if code.exists():
        return code
    packed = subprocess.run(
        ["git", "archive", OLD_COMMIT, "byteor_cloud"], capture_output=True, check=False, cwd=Path(__file__).parents[2]
    )
    if packed.returncode:
        print(f"  replay     commit {OLD_COMMIT} is not in this checkout, so nothing is compared with its engine")
        return None
    code.mkdir()
    subprocess.run(["tar", "-x", "-C", str(code)], input=packed.stdout, check=True)
    # The old engine imports google-re2, which is not installed. This stand-in suffices for a schema without patterns.
    (code / "re2.py").write_text(_RE2)
    return code


def _old_seconds(code: Path, folder: Path, config: dict[str, Any]) -> float:
    environment = {"PYTHONPATH": str(code), "PATH": os.environ["PATH"]}
    argv = [sys.executable, "-c", _OLD, str(folder), json.dumps(config)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, cwd=code)
    return float(done.stdout)


def _ingest(folder: Path, rounds: int) -> Row:
    """Compare unpacking, checking, hashing and indexing a bundle with ``tar -xzf`` and SHA-256 of its files."""
    nothing: dict[str, dict[str, Any]] = {
        "spec_validation.json": dict.fromkeys(("ok", "description")),
        "runtime.json": {"crate": None},
        "policy_audit.json": dict.fromkeys(
            ("ok", "policy_version", "mode", "enforced", "stage_failure_policy", "spec_path")
        ),
        "environment.json": dict.fromkeys(("pid", "cwd", "args", "env", "proc_status")),
    }
    journal = encode_journal(Record(at, at, payload) for at, payload in enumerate(quotes(IDENTITY)))
    packed = folder / "incident.tar.gz"
    packed.write_bytes(build_incident(encode(ring(["identity"])), nothing, journals={"in": journal}))
    into = folder / "unpacked"

    def ingest() -> None:
        with packed.open("rb") as source:
            extract_incident(source, into)
        bundle = validate_incident(into)
        file_digests(into)
        for lane, path in bundle.journals.items():
            index_file(path, folder / f"{lane}.idx")

    def plain() -> None:
        subprocess.run(["tar", "-xzf", str(packed), "-C", str(into)], check=True)
        files = [str(path) for path in into.rglob("*") if path.is_file()]
        subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)

    rates: dict[str, list[float]] = {"ingest with index": [], "tar -xzf + SHA-256": []}
    for number in range(1, rounds + 1):
        for name, work in zip(rates, (ingest, plain), strict=True):
            shutil.rmtree(into, ignore_errors=True)
            into.mkdir()
            rates[name].append(1 / _seconds(work))
        shown = "  ".join(f"{name} {found[-1]:.2f}/s" for name, found in rates.items())
        print(f"  replay     round {number}  {shown}", flush=True)
    return ratio("ingest with index / tar -xzf + SHA-256", rates, goal=0.3)


def _large(folder: Path, large: int) -> list[Row]:
    """Measure the memory of replays of few and of many records, each in its own process, and the time of a trace."""
    peaks = {}
    for count in (SMALL, large):
        journal = folder / "in.bin"
        with journal.open("wb") as target:
            target.writelines(_pieces(count))
        code = f"from tests.bench import replay; replay.print_peak({str(journal)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks[f"{count:,} records"] = float(done.stdout)
        print(
            f"  replay     {count:,} records of 30 bytes: peak memory {peaks[f'{count:,} records']:.0f} MiB", flush=True
        )
    small, most = peaks.values()
    index_file(folder / "in.bin", folder / "in.idx")
    bundle = IncidentBundle(ring(["identity"] * 4), "", {}, {"in": folder / "in.bin"}, {})
    began = time.perf_counter()
    _traced(bundle, large - 1, folder / "in.idx")
    took = (time.perf_counter() - began) * 1000
    return [
        Row(f"memory of {large:,} records over {SMALL:,}", most - small, 64, " MiB", is_most=True, measured=peaks),
        Row(f"trace of record {large:,}", took, 50, " ms", is_most=True),
    ]


def _traced(bundle: IncidentBundle, sequence: int, index: Path) -> None:
    (record,) = trace(bundle, sequence, indexes={"in": index})["records"]
    assert record["position"] == sequence


def _pieces(count: int) -> Iterator[bytes]:
    yield encode_journal([])
    for first in range(0, count, 10_000):
        payloads: Iterable[int] = range(first, min(first + 10_000, count))
        yield encode_journal(Record(number, number, b"%030d" % number) for number in payloads)[8:]


def print_peak(journal: str) -> None:
    """Replay a journal in this process, and print its peak memory in MiB."""
    _replay(IncidentBundle(ring(["identity"] * 4), "", {}, {"in": Path(journal)}, {}), {})
    status = Path("/proc/self/status").read_text()  # getrusage would include the parent's peak
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
