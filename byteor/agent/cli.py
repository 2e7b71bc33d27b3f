"""The ``byteor-agent`` command: enroll an agent, run it, upload an artifact, show its state, replay an incident."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .identity import TOKEN_VARIABLE, VARIABLES

KINDS = ("incident_bundle", "snapshot", "telemetry", "diagnostic")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done, or stopped by a signal. 1: failed. 2: misused. 3: the control plane does not accept the credential.
    """
    options = _parser().parse_args(argv)
    from .commands import execute  # noqa: PLC0415  --help and a wrong command line need nothing of it

    return execute(options)


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ValueError(text)
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-agent",
        description="The ByteOr Cloud reference agent.",
        epilog=f"In run and upload, the environment variables {', '.join(VARIABLES)} replace the stored credentials.",
    )
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")

    enroll = commands.add_parser("enroll", help="use an enrollment token to create an agent")
    enroll.add_argument("--url", required=True, help="the control plane's URL, like https://cloud.example.com")
    enroll.add_argument(
        "--environment", required=True, help="the environment's URL, or ORG_ID/PROJECT_ID/ENVIRONMENT_ID"
    )
    enroll.add_argument("--token", help=f"the enrollment token, or - to read it from stdin; default: ${TOKEN_VARIABLE}")
    enroll.add_argument("--name", help="the agent's name; default: derived from the host name")
    enroll.add_argument("--labels", nargs="+", default=[], metavar="NAME=VALUE")

    run = commands.add_parser(
        "run", help="send heartbeats, and fetch, verify, run and report offered bundles until stopped"
    )
    run.add_argument("--interval-override", type=_positive, metavar="S", help="seconds between heartbeats")
    run.add_argument("--once", action="store_true", help="exit when no offer is left to handle")
    run.add_argument(
        "--sample", type=Path, help="the pipeline's input: a journal, or a text file with one payload per line"
    )

    upload = commands.add_parser("upload", help="upload an artifact")
    upload.add_argument("--kind", required=True, choices=KINDS)
    source = upload.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, help="upload this file")
    source.add_argument("--capture", action="store_true", help="capture an incident of the running pipeline")

    status = commands.add_parser(
        "status", help="print the agent's identity, its progress and its unsent reports as JSON"
    )
    replay = commands.add_parser(
        "replay", help="replay an incident bundle without a server, and print the result that a dry run has there"
    )
    replay.add_argument("bundle", type=Path, metavar="BUNDLE", help="an incident bundle (.tar.gz)")
    replay.add_argument("--version", type=Path, metavar="SPEC_KV", help="replay with this spec.kv instead of its own")
    replay.add_argument("--trace", type=int, metavar="N", help="print the trace of the record with this sequence")
    replay.add_argument("--journal-lane", metavar="NAME", help="replay only the journal of this ingress")
    replay.add_argument("--last-n", type=int, metavar="N", help="replay only the last records")

    for command in (enroll, run, upload, status):
        command.add_argument("--state", type=Path, required=True, help="the agent's state folder")
    return parser
