"""Latencies of heartbeats and lists beside a thousand slow clients of each kind, against the same without them."""

from __future__ import annotations

from tests.slow_clients import KINDS, crowd, measure, prepare
from tests.system.conftest import Installation

COUNT, REQUESTS = 1000, 200


def run() -> None:
    """Print the medians before, beside each kind, and beside all kinds at once."""
    installation = Installation()
    try:
        installation.serve(RATE_LIMIT="off", API_THREADS="8")
        target = prepare(installation.base, installation.bootstrap())
        before = measure(target, REQUESTS)
        _tell("nobody", before.medians, before.medians, before.failures)
        for kinds in (*((kind,) for kind in KINDS), KINDS):
            with crowd(target, COUNT, kinds):
                measure(target, 5)  # until the burst of their opening is worked off
                beside = measure(target, REQUESTS)
            _tell(kinds[0] if len(kinds) == 1 else "all of them", beside.medians, before.medians, beside.failures)
    finally:
        installation.remove()


def _tell(who: str, medians: tuple[float, float], before: tuple[float, float], failures: list[str]) -> None:
    ratios = " and ".join(f"{now:5.1f} ms ({now / then:.2f})" for now, then in zip(medians, before, strict=True))
    print(f"  slow clients  beside {who:<26} heartbeat and list {ratios}, {len(failures)} failures", flush=True)
