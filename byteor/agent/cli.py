"""The ``byteor-agent`` command: enroll an agent, run it, upload an artifact, show its state, replay an incident."""

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

from byteor.engine.canonical import format_time
from byteor.engine.signing.refusals import Refused

from .api import ControlPlaneUnavailable, CredentialRejected, RequestRejected
from .configuration import ActivationError
from .enrollment import connect, enroll_node
from .identity import VARIABLES, BaseUrl, IdentityError, SecretValue
from .incident import capture
from .keyring import Keyring
from .loop import AgentLoop
from .offer_handler import OfferHandler
from .offline_replay import CannotReplay, replay_offline
from .pipeline import BundleRunner
from .resource_meter import ResourceMeter
from .retry import Backoff, retry_until_answered
from .sample import InvalidSample, read_sample
from .state_folder import StateError, StateFolder

TOKEN_VARIABLE = "BYTEOR_ENROLLMENT_TOKEN"  # noqa: S105 - a name, not a token
KINDS = ("incident_bundle", "snapshot", "telemetry", "diagnostic")
_MAX_UPLOAD = 64 * 1024 * 1024
_TRIES = 5

# The event is never set. A signal ends a wait early, because its handler raises StopRequested.
_wait = threading.Event().wait


class StopRequested(BaseException):
    """SIGTERM or SIGINT. It may interrupt the agent anywhere, because the agent replaces its files atomically."""


class ReplayFailed(Exception):
    """A replay failed or diverged; its result was printed."""


class InvalidCommandLine(Exception):
    """A command line that asks for something impossible."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done, or stopped by a signal. 1: failed. 2: misused. 3: the control plane does not accept the credential.
    """
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        options.command(options)
    except StopRequested:
        return 0
    except CredentialRejected as error:
        return _fail(3, f"the control plane does not accept this credential: {error.detail}")
    except (InvalidCommandLine, IdentityError, StateError, InvalidSample, CannotReplay) as error:
        return _fail(2, str(error))
    except (RequestRejected, ControlPlaneUnavailable, Refused, ActivationError, ReplayFailed, OSError) as error:
        return _fail(1, str(error))
    return 0


def _enroll(options: argparse.Namespace) -> None:
    labels = dict(_label(text) for text in options.labels)
    state = StateFolder(options.state)
    identity = enroll_node(
        state,
        base_url=BaseUrl.parse(options.url),
        environment=options.environment,
        token=_token(options.token),
        name=options.name,
        labels=labels,
        wait=_wait,
    )
    print(f"enrolled {identity.name} as agent {identity.agent_id}")


def _run(options: argparse.Namespace) -> None:
    state = StateFolder(options.state)
    sample = read_sample(options.sample) if options.sample else ()
    with state.locked():
        plane, identity, rotation = connect(state, os.environ, _wait, _TRIES if options.once else None)
        keyring = Keyring(state, plane)
        offer_handler = OfferHandler(
            state=state,
            plane=plane,
            keyring=keyring,
            pipeline=BundleRunner(state, sample, os.environ),
            environment_id=identity.environment_id,
            now=_now,
        )
        agent = AgentLoop(
            plane=plane,
            keyring=keyring,
            rotation=rotation,
            offer_handler=offer_handler,
            usage=ResourceMeter(state.folder),
            wait=_wait,
            backoff=Backoff(),
            interval_s=options.interval_override,
        )
        if options.once:
            agent.run_until_idle()
        else:
            agent.run()


def _upload(options: argparse.Namespace) -> None:
    state = StateFolder(options.state)
    fields = {"kind": options.kind, "captured_at": format_time(_now())}
    if options.capture:
        if options.kind != "incident_bundle":
            raise InvalidCommandLine("--capture makes an incident_bundle: use --kind incident_bundle")
        running = state.progress().running
        if running is None:
            raise InvalidCommandLine("no pipeline is running, so there is nothing to capture")
        name, data = "incident.tar.gz", capture(state, running)
        fields |= {"spec_hash": running.spec_hash, "deployment_id": running.deployment_id}
    else:
        name = options.file.name
        with options.file.open("rb") as file:
            data = file.read(_MAX_UPLOAD + 1)
    if len(data) > _MAX_UPLOAD:
        raise InvalidCommandLine(f"the artifact is too large: at most {_MAX_UPLOAD} bytes can be uploaded")
    plane, _, _ = connect(state, os.environ, _wait, _TRIES)
    artifact = retry_until_answered(
        lambda: plane.upload_artifact(fields, name, io.BytesIO(data)), _wait, Backoff(), _TRIES
    )
    print(json.dumps({name: artifact.get(name) for name in ("id", "kind", "status", "content_hash")}))


def _status(options: argparse.Namespace) -> None:
    state = StateFolder(options.state)
    identity = state.identity()
    agent = identity and {
        "id": identity.agent_id,
        "name": identity.name,
        "environment_id": identity.environment_id,
        "base_url": identity.base_url,
    }
    print(json.dumps({"agent": agent, **state.progress().document()}, indent=2))


def _replay(options: argparse.Namespace) -> None:
    done = replay_offline(
        options.bundle,
        spec_kv=options.version,
        journal_lane=options.journal_lane,
        last_n=options.last_n,
        traced=options.trace,
    )
    print(json.dumps(done.document, indent=2))
    for warning in done.warnings:
        print(f"byteor-agent: {warning}", file=sys.stderr)
    if done.problem is not None:
        raise ReplayFailed(done.problem)


def _token(option: str | None) -> SecretValue:
    """Read the enrollment token from the option, from stdin if the option is ``-``, or from the environment."""
    text = os.environ.get(TOKEN_VARIABLE) if option is None else option
    if text is None:
        raise InvalidCommandLine(f"no enrollment token: set {TOKEN_VARIABLE}, or pipe it in with --token -")
    return SecretValue(sys.stdin.readline().strip() if text == "-" else text)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidCommandLine(f"a label must have the form NAME=VALUE, not {text!r}")
    return name, value


def _now() -> datetime:
    return datetime.now(UTC)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise StopRequested


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
        epilog=f"In run and upload, the environment variables {', '.join(VARIABLES)} replace the stored credentials.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    enroll = commands.add_parser("enroll", help="use an enrollment token to create an agent")
    enroll.set_defaults(command=_enroll)
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
    run.set_defaults(command=_run)
    run.add_argument("--interval-override", type=_positive, metavar="S", help="seconds between heartbeats")
    run.add_argument("--once", action="store_true", help="exit when no offer is left to handle")
    run.add_argument(
        "--sample", type=Path, help="the pipeline's input: a journal, or a text file with one payload per line"
    )

    upload = commands.add_parser("upload", help="upload an artifact")
    upload.set_defaults(command=_upload)
    upload.add_argument("--kind", required=True, choices=KINDS)
    source = upload.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, help="upload this file")
    source.add_argument("--capture", action="store_true", help="capture an incident of the running pipeline")

    status = commands.add_parser(
        "status", help="print the agent's identity, its progress and its unsent reports as JSON"
    )
    status.set_defaults(command=_status)
    replay = commands.add_parser(
        "replay", help="replay an incident bundle without a server, and print the result that a dry run has there"
    )
    replay.set_defaults(command=_replay)
    replay.add_argument("bundle", type=Path, metavar="BUNDLE", help="an incident bundle (.tar.gz)")
    replay.add_argument("--version", type=Path, metavar="SPEC_KV", help="replay with this spec.kv instead of its own")
    replay.add_argument("--trace", type=int, metavar="N", help="print the trace of the record with this sequence")
    replay.add_argument("--journal-lane", metavar="NAME", help="replay only the journal of this ingress")
    replay.add_argument("--last-n", type=int, metavar="N", help="replay only the last records")

    for command in (enroll, run, upload, status):
        command.add_argument("--state", type=Path, required=True, help="the agent's state folder")
    return parser
