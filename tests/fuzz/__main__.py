"""``make fuzz``: schemathesis against a live server on a scratch data folder.

Exits 1 when an answer contradicts the OpenAPI document, with a curl command for each; the seed repeats the run.
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
# The bounds of every parameter and field, one by one, take schemathesis some two minutes.
ENOUGH_FOR_COVERAGE_S = 300
CASES_A_PASS = 5
_TESTED = re.compile(r"Tested: (\d+)")
_CASES = re.compile(r"(\d+) generated")
_FINDINGS = re.compile(r"found (\d+) unique failures?")


def serve(installation: Installation, issuer: str) -> Path:
    """Make the tenants and start the server; the file that names their ids and credentials."""
    world = installation.data_dir / "world.json"
    settings = {
        "RATE_LIMIT": "off",
        "OIDC_ISSUER": issuer,
        "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET": CLIENT_SECRET,
    }
    program = f"from tests.fuzz.world import main; main({str(world)!r})"
    for argv in (["migrate"], ["shell", "--no-imports", "-c", program]):
        done = installation.manage(*argv, **settings)
        if done.returncode != 0:
            raise SystemExit(f"fuzz: manage.py {argv[0]} failed:\n{done.stderr[-3000:]}")
    installation.serve(**settings)
    return world


def run(base: str, world: Path, *, schemathesis: Path, seconds: int, seed: int, arguments: list[str]) -> int:
    """Run schemathesis for that long and say what came of it; 1 when it found something, 2 when it did not run."""
    phases = "coverage,fuzzing" if seconds >= ENOUGH_FOR_COVERAGE_S else "fuzzing"
    command = [
        *(str(schemathesis), "--no-color", "run", f"{base}/api/schema?format=json"),
        *("--checks", ",".join(CHECKS), "--phases", phases, "--seed", str(seed), "--continue-on-failure"),
        # Small passes over all operations until the time is over: none is left out for another.
        *("--max-time", str(seconds), "--max-examples", str(CASES_A_PASS)),
        *("--generation-database", "none", "--output-sanitize", "false", "--warnings", "off"),
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "BYTEOR_FUZZ_WORLD": str(world),
    }
    said = []
    with subprocess.Popen(
        command, cwd=world.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    text = "".join(said)
    tested, cases = _TESTED.search(text), _CASES.search(text)
    if tested is None or cases is None or int(cases[1]) == 0:
        print("fuzz: schemathesis tested nothing")
        return 2
    findings = _FINDINGS.search(text)
    count = int(findings[1]) if findings else 0
    print(f"fuzz: {tested[1]} operations, {cases[1]} cases, {count} findings (seed {seed})")
    return 1 if count or process.returncode != 0 else 0


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the API of a live server.")
    parser.add_argument("--seconds", type=int, default=60, help="how long, all operations together")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="repeats a run")
    parser.add_argument("--schemathesis", type=Path, required=True, help="its program")
    options, arguments = parser.parse_known_args()
    provider, installation = Provider(), Installation()
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
