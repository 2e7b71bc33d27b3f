"""``python -m tests.bench [NAME …]``: run the named benchmarks, or all."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from byteor_cloud.embedded import EmbeddedPostgres


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _installation() -> Iterator[Path]:
    """Yield a temporary data folder with a migrated database, after Django is set up in this process."""
    folder = Path(tempfile.mkdtemp(prefix="byteor-bench-"))
    folder.chmod(0o711)  # the embedded database may run as another account, which needs access
    os.environ |= {
        "BYTEOR_CLOUD_DATA_DIR": str(folder),
        "BYTEOR_CLOUD_RATE_LIMIT": "off",
        "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
    }
    (folder / "static").mkdir()
    postgres = EmbeddedPostgres(folder)
    os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = postgres.acquire()
    import django
    from django.core.management import call_command
    from django.db import connections

    try:
        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        yield folder
    finally:
        connections.close_all()
        postgres.release()
        shutil.rmtree(folder, ignore_errors=True)


def _heartbeat() -> None:
    with _installation() as folder:
        from tests.bench import heartbeat

        heartbeat.run(folder, _free_port())


def _enrollment() -> None:
    with _installation() as folder:
        from tests.bench import enrollment

        enrollment.run(folder, _free_port())


def _deployment() -> None:
    with _installation():
        from tests.bench import deployment

        deployment.run()


def _ledger() -> None:
    with _installation():
        from tests.bench import ledger

        ledger.run()


def _slow_clients() -> None:
    from tests.bench import slow_clients

    slow_clients.run()


def _compiler() -> None:
    from tests.bench import compiler

    compiler.run()


def _demo() -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "byteor_cloud.demo"], check=True, stdout=subprocess.DEVNULL)
    print(f"  demo       {time.monotonic() - began:.1f} s in total  (goal: under 20 s)")


BENCHMARKS = {
    "compiler": _compiler,
    "heartbeat": _heartbeat,
    "enrollment": _enrollment,
    "deployment": _deployment,
    "ledger": _ledger,
    "slow-clients": _slow_clients,
    "demo": _demo,
}


def main() -> int:
    """Run the named benchmarks. Each gets its own process, because a process reads the settings only once."""
    chosen = sys.argv[1:] or list(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        print(f"unknown benchmarks: {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    if len(chosen) == 1:
        BENCHMARKS[chosen[0]]()
        return 0
    return max(subprocess.run([sys.executable, "-m", "tests.bench", name], check=False).returncode for name in chosen)


if __name__ == "__main__":
    sys.exit(main())
