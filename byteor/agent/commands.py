"""The implementation of the ``byteor-agent`` commands."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from getpass import getpass
from types import FrameType
from typing import NoReturn

from byteor.engine.canonical import format_time
from byteor.engine.signing.refusals import Refused

from .api import ControlPlaneUnavailable, CredentialRejected, RequestRejected
from .configuration import ActivationError
from .enrollment import connect, enroll_agent
from .identity import TOKEN_VARIABLE, BaseUrl, IdentityError, SecretValue
from .incident import capture
from .keyring import Keyring
from .loop import AgentLoop
from .offer_handler import OfferHandler
from .offline_replay import CannotReplay, replay_offline
from .pipeline import BundleRunner
from .requested_captures import MAX_UPLOAD, RequestedCaptures
from .resource_meter import ResourceMeter
from .retry import Backoff, retry_while_unavailable
from .sample import InvalidSample, read_sample
from .state_folder import StateError, StateFolder

_TRIES = 5

# The event is never set. A signal interrupts a wait, because the signal handler raises StopRequested.
_wait = threading.Event().wait


class StopRequested(BaseException):
    """Raised on SIGTERM or SIGINT, at any point. No file is damaged, because files are replaced atomically."""


class ReplayFailed(Exception):
    """A replay failed or diverged, or a trace found no record. The result has already been printed."""


class InvalidCommandLine(Exception):
    """A command line that cannot be carried out."""


def execute(options: argparse.Namespace) -> int:
    """Run the command in ``options`` and return the exit code of ``byteor-agent``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        _COMMANDS[options.command](options)
    except StopRequested:
        return 0
    except CredentialRejected as error:
        return _fail(options.program, 3, f"the control plane does not accept this credential: {error.detail}")
    except (InvalidCommandLine, IdentityError, StateError, InvalidSample, CannotReplay) as error:
        return _fail(options.program, 2, str(error))
    except (RequestRejected, ControlPlaneUnavailable, Refused, ActivationError, ReplayFailed, OSError) as error:
        return _fail(options.program, 1, str(error))
    return 0


def _enroll(options: argparse.Namespace) -> None:
    labels = dict(_label(text) for text in options.labels)
    state = StateFolder(options.state)
    identity = enroll_agent(
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
            captures=RequestedCaptures(state, plane, now=_now, backoff=Backoff()),
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
            raise InvalidCommandLine("--capture creates an incident bundle: use --kind incident_bundle")
        running = state.progress().running
        if running is None:
            raise InvalidCommandLine("no pipeline is running, so there is nothing to capture")
        name, data = "incident.tar.gz", capture(state, running)
        fields |= {"spec_hash": running.spec_hash, "deployment_id": running.deployment_id}
    else:
        name = options.file.name
        with options.file.open("rb") as file:
            data = file.read(MAX_UPLOAD + 1)
    if len(data) > MAX_UPLOAD:
        raise InvalidCommandLine(f"the artifact is too large: at most {MAX_UPLOAD} bytes can be uploaded")
    plane, _, _ = connect(state, os.environ, _wait, _TRIES)
    artifact = retry_while_unavailable(
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
    result = replay_offline(
        options.bundle,
        spec_kv=options.version,
        journal_lane=options.journal_lane,
        last_n=options.last_n,
        traced=options.trace,
    )
    print(json.dumps(result.document, indent=2))
    for warning in result.warnings:
        print(f"{options.program}: {warning}", file=sys.stderr)
    if result.problem is not None:
        raise ReplayFailed(result.problem)


def _token(option: str | None) -> SecretValue:
    """Read the enrollment token from the option, from stdin if the option is ``-``, or from the environment.

    Otherwise, prompt for it on the terminal without showing it. Raises InvalidCommandLine if there is no terminal, and
    IdentityError if the token is empty or contains invalid characters.
    """
    text = os.environ.get(TOKEN_VARIABLE) if option is None else option
    if text is None and sys.stdin.isatty():
        text = getpass("Enrollment token: ").strip()
    if text is None:
        raise InvalidCommandLine(f"no enrollment token: set {TOKEN_VARIABLE} or use --token")
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


def _fail(program: str, code: int, message: str) -> int:
    print(f"{program}: {message}", file=sys.stderr)
    return code


_COMMANDS = {"enroll": _enroll, "run": _run, "upload": _upload, "status": _status, "replay": _replay}
