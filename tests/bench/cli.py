"""The benchmark of starting the command ``byteor`` and importing its client: the processor time of each process."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.results import Row

RUNS = 20
YARDSTICK = "python -c pass"
# 60 ms on a machine on which an empty Python takes 9 ms. Machines differ too much for a limit in milliseconds.
GOAL = 60 / 9
PYTHON = sys.executable
BYTEOR = str(Path(PYTHON).with_name("byteor"))
COMPLETE = {"_BYTEOR_COMPLETE": "bash_complete", "COMP_WORDS": "byteor dr", "COMP_CWORD": "1"}
CLIENT = "from byteor.client import ByteOr; ByteOr('http://127.0.0.1')"
COMMANDS: Mapping[str, Sequence[str]] = {
    YARDSTICK: (PYTHON, "-c", "pass"),
    "import byteor.client": (PYTHON, "-c", CLIENT),
    "import byteor.client and models": (PYTHON, "-c", f"{CLIENT}; import byteor.client.models"),
    "import byteor.client, models and httpx2": (PYTHON, "-c", f"{CLIENT}; import byteor.client.models, httpx2"),
    "import the asynchronous client": (PYTHON, "-c", "from byteor.client import AsyncByteOr"),
    "byteor --version": (BYTEOR, "--version"),
    "byteor --help": (BYTEOR, "--help"),
    "byteor drafts --help": (BYTEOR, "drafts", "--help"),
    "byteor drafts apply --help": (BYTEOR, "drafts", "apply", "--help"),
    "python -m byteor.command.main --help": (PYTHON, "-m", "byteor.command.main", "--help"),
    "complete byteor dr": (BYTEOR,),
}
# The yardstick, the modules that the first request imports additionally, and the asynchronous client.
WITHOUT_GOAL = (YARDSTICK, "import byteor.client, models and httpx2", "import the asynchronous client")


def processor_ms(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Run a command, and return its processor time (user and system) in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BYTEOR_", "PYTHON"))}
    subprocess.run(command, env={**environment, **variables}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def run() -> list[Row]:
    """Print the median time of each command. Return the ratios to the yardstick for the commands with a goal."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(RUNS + 1):
        for name, command in COMMANDS.items():
            found = processor_ms(command, COMPLETE if name.startswith("complete") else {})
            if number:  # the first run compiles the modules
                times[name].append(found)
    for name, values in times.items():
        print(f"  cli        {name:40} {statistics.median(values):6.1f} ms", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return [
        Row(
            f"{name} / {YARDSTICK}", ms / medians[YARDSTICK], GOAL, is_most=True, note=f"{ms:.0f} ms",
            measured={"ms": round(ms, 1), YARDSTICK: round(medians[YARDSTICK], 1)},
        )
        for name, ms in medians.items()
        if name not in WITHOUT_GOAL
    ]  # fmt: skip
