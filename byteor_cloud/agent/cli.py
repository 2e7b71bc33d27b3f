"""``byteor-agent``: enroll a node, run it, upload an artifact, show its state."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from byteor_cloud.engine.delivery.encoding import format_time
from byteor_cloud.engine.delivery.refusals import Refused

from .api import Rejected, Unauthorized, Unavailable
from .configuration import ActivationFailed
from .enrollment import enroll_node, sign_in
from .identity import VARIABLES, BaseUrl, IdentityError, Secret
from .incident import capture
from .keyring import Keyring
from .loop import Agent
from .pipeline import Pipeline
from .resources import Usage
from .retry import Backoff, insist
from .rollout import Rollout
from .sample import BadSample, read_sample
from .state import State, StateError

TOKEN_VARIABLE = "BYTEOR_ENROLLMENT_TOKEN"  # noqa: S105 - a name, not a token
KINDS = ("incident_bundle", "snapshot", "telemetry", "diagnostic")
_MAX_UPLOAD = 64 * 1024 * 1024
_TRIES = 5

# Never set: what ends a wait early is the exception that a signal raises.
_wait = threading.Event().wait


class Stopped(BaseException):
    """SIGTERM or SIGINT, raised wherever the agent is, as every file is replaced whole."""


class UsageError(Exception):
    """The command line asks for something that can't be done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 done or stopped, 1 failed, 2 misused, 3 the credential is not accepted."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        options.command(options)
    except Stopped:
        return 0
    except Unauthorized as error:
        return _fail(3, f"the control plane does not accept this credential: {error.detail}")
    except (UsageError, IdentityError, StateError, BadSample) as error:
        return _fail(2, str(error))
    except (Rejected, Unavailable, Refused, ActivationFailed, OSError) as error:
        return _fail(1, str(error))
    return 0


def _enroll(options: argparse.Namespace) -> None:
    labels = dict(_label(text) for text in options.labels)
    state = State(options.state)
    node = enroll_node(
        state,
        base_url=BaseUrl.parse(options.url),
        environment=options.environment,
        token=_token(options.token),
        name=options.name,
        labels=labels,
        wait=_wait,
    )
    print(f"enrolled {node.name} as agent {node.agent_id}")


def _run(options: argparse.Namespace) -> None:
    state = State(options.state)
    sample = read_sample(options.sample) if options.sample else ()
    with state.locked():
        plane, node = sign_in(state, os.environ, _wait, _TRIES if options.once else None)
        keyring = Keyring(state, plane)
        rollout = Rollout(
            state=state,
            plane=plane,
            keyring=keyring,
            pipeline=Pipeline(state, sample, os.environ),
            environment_id=node.environment_id,
            now=_now,
        )
        agent = Agent(
            plane=plane,
            keyring=keyring,
            rollout=rollout,
            usage=Usage(state.folder),
            wait=_wait,
            backoff=Backoff(),
            interval_s=options.interval_override,
        )
        if options.once:
            agent.settle()
        else:
            agent.run()


def _upload(options: argparse.Namespace) -> None:
    state = State(options.state)
    fields = {"kind": options.kind, "captured_at": format_time(_now())}
    if options.capture:
        if options.kind != "incident_bundle":
            raise UsageError("only an incident_bundle can be captured")
        running = state.progress().running
        if running is None:
            raise UsageError("nothing runs here, so there is nothing to capture")
        name, data = "incident.tar.gz", capture(state, running)
        fields |= {"spec_hash": running.spec_hash, "deployment_id": running.deployment_id}
    else:
        name = options.file.name
        with options.file.open("rb") as file:
            data = file.read(_MAX_UPLOAD + 1)
    if len(data) > _MAX_UPLOAD:
        raise UsageError(f"an artifact has at most {_MAX_UPLOAD} bytes")
    plane, _ = sign_in(state, os.environ, _wait, _TRIES)
    artifact = insist(lambda: plane.upload(fields, name, io.BytesIO(data)), _wait, Backoff(), _TRIES)
    print(json.dumps({name: artifact.get(name) for name in ("id", "kind", "status", "content_hash")}))


def _status(options: argparse.Namespace) -> None:
    state = State(options.state)
    node = state.node()
    agent = node and {
        "id": node.agent_id,
        "name": node.name,
        "environment_id": node.environment_id,
        "base_url": node.base_url,
    }
    print(json.dumps({"agent": agent, **state.progress().document()}, indent=2))


def _token(given: str | None) -> Secret:
    """The enrollment token of the option, ``-`` for stdin, else of the environment."""
    if given is None:
        given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        raise UsageError(f"no enrollment token: set {TOKEN_VARIABLE}, or pipe it in with --token -")
    return Secret(sys.stdin.readline().strip() if given == "-" else given)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"a label is written name=value, not {text!r}")
    return name, value


def _now() -> datetime:
    return datetime.now(UTC)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


def _fail(code: int, message: str) -> int:
    print(f"byteor-agent: {message}", file=sys.stderr)
    return code


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ValueError(text)
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-agent",
        description="The ByteOr Cloud reference agent.",
        epilog=f"Instead of stored credentials, run and upload take {', '.join(VARIABLES)}.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    enroll = commands.add_parser("enroll", help="spend an enrollment token")
    enroll.set_defaults(command=_enroll)
    enroll.add_argument("--url", required=True, help="the control plane, like https://cloud.example.com")
    enroll.add_argument("--environment", required=True, help="its URL, or ORG_ID/PROJECT_ID/ENVIRONMENT_ID")
    enroll.add_argument("--token", help=f"the enrollment token; - reads stdin; default: ${TOKEN_VARIABLE}")
    enroll.add_argument("--name", help="default: from the host name")
    enroll.add_argument("--labels", nargs="+", default=[], metavar="NAME=VALUE")

    run = commands.add_parser("run", help="beat, fetch, verify, run and report until stopped")
    run.set_defaults(command=_run)
    run.add_argument("--interval-override", type=_positive, metavar="S", help="seconds between heartbeats")
    run.add_argument("--once", action="store_true", help="end when nothing is left to do")
    run.add_argument(
        "--sample", type=Path, help="input for the pipeline: a journal, or one payload a line; default: none"
    )

    upload = commands.add_parser("upload", help="upload an artifact")
    upload.set_defaults(command=_upload)
    upload.add_argument("--kind", required=True, choices=KINDS)
    source = upload.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path)
    source.add_argument("--capture", action="store_true", help="an incident bundle of what runs")

    status = commands.add_parser("status", help="print what this node remembers, as JSON")
    status.set_defaults(command=_status)
    for command in (enroll, run, upload, status):
        command.add_argument("--state", type=Path, required=True, help="the agent's folder")
    return parser
