"""Run schemathesis against a live server with a temporary data folder. ``make fuzz`` runs this module.

The exit code of this module is 1 if the server cannot be prepared, and 2 if schemathesis then tests no operation.
Otherwise, it is 1 if schemathesis or a check of a response fails, and 0 if not. For each distinct failure, schemathesis
prints a curl command. To repeat a run, pass its printed seed as ``--seed``.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
from pathlib import Path

from tests.system.conftest import ROOT, Installation
from tests.tenancy.provider import CLIENT_ID, CLIENT_SECRET, Provider

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "missing_required_header",
    "ignored_auth",
)
# The coverage phase tests the limits of each parameter and field, which takes about two minutes.
MIN_SECONDS_FOR_COVERAGE = 300
CASES_PER_PASS = 5
_TESTED = re.compile(r"Tested: (\d+)")
_CASES = re.compile(r"(\d+) generated")
_FINDINGS = re.compile(r"found (\d+) unique failures?")


def serve(installation: Installation, issuer: str) -> Path:
    """Migrate the database, create the tenants and start the server. Returns the path of the ids and credentials."""
    world = installation.data_dir / "world.json"
    settings = {
        "RATE_LIMIT": "off",
        "OIDC_ISSUER": issuer,
        "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET": CLIENT_SECRET,
    }
    program = f"from tests.fuzz.world import main; main({str(world)!r})"
    for argv in (["migrate"], ["shell", "--no-imports", "-c", program]):
        ended = installation.manage(*argv, **settings)
        if ended.returncode != 0:
            raise SystemExit(f"fuzz: manage.py {argv[0]} failed:\n{ended.stderr[-3000:]}")
    installation.serve(**settings)
    return world


def run(base: str, world: Path, *, schemathesis: Path, seconds: int, seed: int, arguments: list[str]) -> int:
    """Run schemathesis, print a summary, and return the exit code.

    It is 2 if schemathesis tested no operation. Otherwise, it is 1 if schemathesis or a check failed, and 0 if not.
    """
    phases = "coverage,fuzzing" if seconds >= MIN_SECONDS_FOR_COVERAGE else "fuzzing"
    command = [
        *(str(schemathesis), "--no-color", "run", f"{base}/api/schema?format=json"),
        *("--checks", ",".join(CHECKS), "--phases", phases, "--seed", str(seed), "--continue-on-failure"),
        # Repeat small passes over all operations until the time is over, so that every operation gets tested.
        *("--max-time", str(seconds), "--max-examples", str(CASES_PER_PASS)),
        *("--generation-database", "none", "--output-sanitize", "false", "--warnings", "off"),
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "BYTEOR_FUZZ_WORLD": str(world),
    }
    output = []
    with subprocess.Popen(
        command, cwd=world.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            output.append(line)
    text = "".join(output)
    tested, cases = _TESTED.search(text), _CASES.search(text)
    if tested is None or cases is None or int(cases[1]) == 0:
        print("fuzz: schemathesis tested no operation")
        return 2
    findings = _FINDINGS.search(text)
    count = int(findings[1]) if findings else 0
    print(f"fuzz: {tested[1]} operations, {cases[1]} cases, {count} finding{'s' * (count != 1)} (seed {seed})")
    return 1 if count or process.returncode != 0 else 0


def main() -> int:
    """Start a server, fuzz it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the API of a live server.")
    parser.add_argument("--seconds", type=int, default=60, help="the total time for all operations, in seconds")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 32), help="the seed of an earlier run, to repeat it"
    )
    parser.add_argument("--schemathesis", type=Path, required=True, help="the path of the schemathesis program")
    options, arguments = parser.parse_known_args()
    provider, installation = Provider(), Installation(is_prepared=False)
    try:
        world = serve(installation, provider.issuer)
        return run(
            installation.base,
            world,
            schemathesis=options.schemathesis.absolute(),
            seconds=options.seconds,
            seed=options.seed,
            arguments=arguments,
        )
    finally:
        installation.remove()
        provider.stop()


if __name__ == "__main__":
    sys.exit(main())
