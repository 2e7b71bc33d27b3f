"""The benchmark of slow clients: latencies of heartbeats and lists without slow clients and with 1,000 per kind."""

from __future__ import annotations

from tests.slow_clients import KINDS, crowd, measure, prepare
from tests.system.conftest import Installation

COUNT, REQUESTS = 1000, 200


def run() -> None:
    """Print the median latencies without slow clients, with each kind of them, and with all kinds together."""
    installation = Installation(is_prepared=False)
    try:
        installation.serve(RATE_LIMIT="off", API_THREADS="8")
        target = prepare(installation.base, installation.bootstrap())
        before = measure(target, REQUESTS)
        _print_line("no slow clients", before.medians, before.medians, before.failures)
        for kinds in (*((kind,) for kind in KINDS), KINDS):
            with crowd(target, COUNT, kinds):
                measure(target, 5)  # waits until the burst of new connections is handled
                during = measure(target, REQUESTS)
            _print_line(kinds[0] if len(kinds) == 1 else "all kinds", during.medians, before.medians, during.failures)
    finally:
        installation.remove()


def _print_line(kind: str, medians: tuple[float, float], before: tuple[float, float], failures: list[str]) -> None:
    ratios = " and ".join(f"{now:5.1f} ms ({now / then:.2f})" for now, then in zip(medians, before, strict=True))
    print(f"  slow clients  {kind:<26} heartbeat and list {ratios}, {len(failures)} failures", flush=True)
