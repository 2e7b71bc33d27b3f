"""The ``byteor-agent`` command: enroll, run or show an agent, upload an artifact, replay an incident."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .identity import TOKEN_VARIABLE, VARIABLES

KINDS = ("incident_bundle", "snapshot", "telemetry", "diagnostic")


def main(argv: Sequence[str] | None = None, *, program: str = "byteor-agent") -> int:
    """Run one command and return its exit code. ``program`` is the name in its help and its errors.

    0: finished, or stopped by SIGTERM or SIGINT. 1: another failure, such as a failed replay. 2: the command line,
    credentials, state folder or sample cannot be used, the incident bundle or spec is invalid or cannot be traced, or
    a field of the enrollment response is missing or has the wrong type. 3: the control plane does not accept the
    credential. Raises SystemExit for ``--help`` and for arguments that cannot be parsed.
    """
    options = _parser(program).parse_args(argv)
    from .commands import execute  # noqa: PLC0415  imported late, so that --help is fast

    return execute(options)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= 86_400:
            return seconds
    raise argparse.ArgumentTypeError("must be a number greater than 0 and at most 86400")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="The ByteOr Cloud reference agent.",
        epilog=f"For run and upload, the environment variables {', '.join(VARIABLES)} override the stored credentials.",
    )
    parser.set_defaults(program=program)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")

    enroll = commands.add_parser("enroll", help="create an agent with an enrollment token")
    enroll.add_argument("--url", required=True, help="the control plane's URL, such as https://cloud.example.com")
    enroll.add_argument(
        "--environment", required=True, help="the environment's API URL, or ORG_ID/PROJECT_ID/ENVIRONMENT_ID"
    )
    enroll.add_argument(
        "--token",
        help=f"the enrollment token, or - to read it from stdin; default: ${TOKEN_VARIABLE}, otherwise prompts for it",
    )
    enroll.add_argument("--name", help="the agent's name; default: derived from the host name")
    enroll.add_argument("--labels", nargs="+", default=[], metavar="NAME=VALUE", help="the agent's labels")

    run = commands.add_parser(
        "run", help="run the agent: send heartbeats; download, verify, run and report the offered bundles"
    )
    run.add_argument(
        "--interval-override",
        type=_seconds,
        metavar="S",
        help="seconds between heartbeats; default: as the control plane requests",
    )
    run.add_argument("--once", action="store_true", help="handle the current offers and a requested capture, then exit")
    run.add_argument(
        "--sample", type=Path, help="the pipeline's input: a journal, or a text file with one payload per line"
    )

    upload = commands.add_parser("upload", help="upload an artifact")
    upload.add_argument("--kind", required=True, choices=KINDS, help="the kind of the artifact")
    source = upload.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, help="upload this file")
    source.add_argument("--capture", action="store_true", help="capture the running pipeline as an incident bundle")

    status = commands.add_parser("status", help="print the agent's identity, progress and unsent reports as JSON")
    replay = commands.add_parser(
        "replay",
        help="replay an incident bundle offline, like a dry run without a config bundle, and print the result as JSON",
    )
    replay.add_argument("bundle", type=Path, metavar="BUNDLE", help="an incident bundle (.tar.gz)")
    replay.add_argument("--version", type=Path, metavar="SPEC_KV", help="use this spec.kv instead of the bundle's")
    part = replay.add_mutually_exclusive_group()
    part.add_argument(
        "--trace", type=int, metavar="N", help="trace the records with sequence number N, instead of replaying"
    )
    replay.add_argument("--journal-lane", metavar="NAME", help="use only the journal of this ingress or lane")
    part.add_argument("--last-n", type=int, metavar="N", help="replay only the last N records")

    for command in (enroll, run, upload, status):
        command.add_argument("--state", type=Path, required=True, help="the agent's state folder")
    return parser
