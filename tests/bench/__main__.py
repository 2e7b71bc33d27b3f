"""``python -m tests.bench [NAME …]`` runs benchmarks.

Most results are also printed in one table at the end, and saved as JSON and as a picture.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from byteor_cloud.database import embedded
from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.bench import load, results
from tests.bench.results import Row
from tests.ports import free_port

OUTPUT = Path("var/bench")


@contextmanager
def _installation() -> Iterator[Path]:
    """Set up Django in this process, and yield a temporary data folder with a migrated database."""
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


def _heartbeat(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import heartbeat

        return heartbeat.run(folder, free_port(), seconds=options.seconds, rounds=options.rounds)


def _enrollment(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import enrollment

        return enrollment.run(folder, free_port(), seconds=options.seconds, rounds=options.rounds)


def _upload(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import upload

        return upload.run(folder, free_port(), seconds=options.seconds, rounds=options.rounds)


def _lists(options: argparse.Namespace) -> list[Row]:
    with _installation():
        from tests.bench import lists

        return lists.run(free_port(), seconds=options.seconds, rounds=options.rounds)


def _facts(options: argparse.Namespace) -> list[Row]:
    with _installation():
        from tests.bench import facts

        # Limit each measurement to about one second, because there are ten pages at two sizes.
        seconds, large = min(1.0, options.seconds), min(facts.LARGE, options.agents)
        return facts.run(free_port(), seconds=seconds, rounds=options.rounds, large=large)


def _console(options: argparse.Namespace) -> list[Row]:
    with _installation():
        from tests.bench import console

        return console.run(rounds=options.rounds, large=options.agents)


def _fleet(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import fleet

        return fleet.run_steady(folder, free_port(), agents=options.agents, seconds=options.fleet_seconds)


def _herd(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import fleet

        return fleet.run_herd(folder, free_port(), agents=options.herd_agents)


def _poll(options: argparse.Namespace) -> list[Row]:
    with patch.dict(embedded._SETTINGS, max_connections="300"), _installation() as folder:
        from tests.bench import poll

        return poll.run(folder, free_port(), agents=options.poll_agents, processes=options.poll_processes)


def _bad_tokens(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import fleet

        return fleet.run_bad_tokens(folder, free_port(), seconds=options.seconds, rounds=options.rounds)


def _neighbours(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import neighbours
        from tests.bench.neighbour_loads import LOADS

        names = options.loads.split(",") if options.loads else list(LOADS)
        if unknown := set(names) - set(LOADS):
            raise SystemExit(f"unknown loads: {', '.join(sorted(unknown))}; choose from {', '.join(LOADS)}")
        ports = iter(free_port, None)
        return neighbours.run(folder, ports, names=names, seconds=options.seconds, rounds=options.rounds)


def _processes(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import processes

        processes.run(folder, free_port, seconds=options.seconds, rounds=options.rounds)
    return []


def _deployment(options: argparse.Namespace) -> list[Row]:
    with _installation():
        from tests.bench import deployment

        deployment.run()
    return []


def _ledger(options: argparse.Namespace) -> list[Row]:
    with _installation():
        from tests.bench import ledger

        ledger.run()
    return []


def _messages(options: argparse.Namespace) -> list[Row]:
    with _installation():
        from tests.bench import messages

        return messages.run(options.rounds)


def _backup(options: argparse.Namespace) -> list[Row]:
    with _installation() as folder:
        from tests.bench import backup

        return backup.run(
            folder, free_port(), blobs=options.backup_blobs, seconds=options.seconds, rounds=options.rounds
        )


def _slow_clients(options: argparse.Namespace) -> list[Row]:
    from tests.bench import slow_clients

    slow_clients.run()
    return []


def _compiler(options: argparse.Namespace) -> list[Row]:
    from tests.bench import compiler

    compiler.run()
    return []


def _replay(options: argparse.Namespace) -> list[Row]:
    from tests.bench import replay

    return replay.run(options.rounds)


def _regression(options: argparse.Namespace) -> list[Row]:
    from tests.bench import regression

    rows = regression.run_engine(options.rounds)
    with _installation():
        rows += regression.run_service(options.fixtures)
        from tests.bench import gate

        return rows + gate.run(free_port(), rounds=options.rounds, seconds=options.seconds)


def _cli(options: argparse.Namespace) -> list[Row]:
    from tests.bench import cli

    return cli.run()


def _demo(options: argparse.Namespace) -> list[Row]:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "byteor_cloud.demo"], check=True, stdout=subprocess.DEVNULL)
    print(f"  demo       {time.monotonic() - began:.1f} s in total  (goal: under 20 s)")
    return []


BENCHMARKS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "heartbeat": _heartbeat,
    "enrollment": _enrollment,
    "upload": _upload,
    "lists": _lists,
    "facts": _facts,
    "console": _console,
    "fleet": _fleet,
    "herd": _herd,
    "poll": _poll,
    "bad-tokens": _bad_tokens,
    "neighbours": _neighbours,
    "processes": _processes,
    "compiler": _compiler,
    "deployment": _deployment,
    "ledger": _ledger,
    "messages": _messages,
    "backup": _backup,
    "slow-clients": _slow_clients,
    "replay": _replay,
    "regression": _regression,
    "cli": _cli,
    "demo": _demo,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench ARGS='…'", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="the number of rounds, whose median usually counts")
    parser.add_argument("--seconds", type=float, default=4.0, help="the seconds of a measurement, at most 1 for facts")
    parser.add_argument("--agents", type=int, default=100_000, help="the number of agents for fleet, facts and console")
    parser.add_argument("--fleet-seconds", type=int, default=300, help="the seconds for which fleet runs")
    parser.add_argument("--herd-agents", type=int, default=20_000, help="the number of agents for herd")
    parser.add_argument("--poll-agents", type=int, default=20_000, help="the number of agents for poll")
    parser.add_argument("--poll-processes", type=int, default=8, help="the number of API processes for poll")
    parser.add_argument("--fixtures", type=int, default=1_000, help="the number of fixtures for regression")
    parser.add_argument("--backup-blobs", type=int, default=5_000, help="the number of blobs that backup copies")
    parser.add_argument("--loads", help="the loads for neighbours, separated by commas; by default all")
    parser.add_argument("--json", type=Path, default=OUTPUT / "results.json", help="where to write the results")
    parser.add_argument("--picture", type=Path, default=OUTPUT / "results.svg", help="where to draw the picture")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Run the named or all benchmarks, each in its own process, because a process reads the settings only once."""
    parser = _parser()
    options = parser.parse_args()
    chosen = options.names or list(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(f"unknown benchmarks: {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")
    if options.part is not None:
        results.save(options.part, BENCHMARKS[options.name](options), {})
        return 0
    context = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), **load.machine()}
    print(f"{context['cores']} cores ({context['cpu']}), Python {context['python']}, load by {context['generator']}")
    code, rows = 0, list[Row]()
    with tempfile.TemporaryDirectory(prefix="byteor-bench-parts-") as parts:
        for name in chosen:
            part = Path(parts, name)
            argv = [sys.executable, "-m", "tests.bench", *sys.argv[1:], "--part", str(part), "--name", name]
            code = max(code, subprocess.run(argv, check=False).returncode)
            rows += results.load(part) if part.exists() else []
    if rows:
        results.save(options.json, rows, context)
        results.draw(options.picture, rows, f"Results and their goals: {context['cores']} cores, {context['cpu']}")
        print(f"\n{results.table(rows)}\n\nwritten to {options.json} and {options.picture}")
    return code


if __name__ == "__main__":
    sys.exit(main())
