"""An execute replay runs at most once, even after an interruption or an error, and with two workers."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from apps.artifacts.jobs import RunReplay
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children, effects, replay_runs, uploads
from apps.artifacts.tasks import replay as replay_job
from apps.releases.models import Approval
from byteor.engine.allowlist import parse_url_prefix
from byteor.engine.replay import RejectedBundle, RejectionReason
from byteor_cloud.errors import Unavailable
from byteor_cloud.worker.jobs import Claim
from tests.artifacts.execute_steps import (
    audit_actions,
    bodies,
    capture_incident,
    create_environment,
    request_approved_replay,
    request_replay,
    status_and_error,
)
from tests.artifacts.incidents import PAYLOADS
from tests.artifacts.servers import Receiver, respond_ok, serve_http
from tests.races import Race
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


class Killed(BaseException):
    """Simulates the death of the worker."""


def test_interrupted_execute_replay_fails_and_is_not_repeated(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = request_replay(world, capture_incident(world, receiver))
    post = effects.Executor._post

    def die_after_the_first(*arguments: Any) -> None:
        post(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(effects.Executor, "_post", die_after_the_first)
        with pytest.raises(Killed):
            replay_runs.run(str(replay.pk))
    assert (status_and_error(replay), bodies(receiver)) == (("running", None), PAYLOADS[:1])

    replay_runs.run(str(replay.pk))

    assert (status_and_error(replay), bodies(receiver)) == (("failed", "interrupted"), PAYLOADS[:1])
    replay_runs.run(str(replay.pk))
    assert len(receiver.requests) == 1
    assert audit_actions(replay) == ["replay.request", "replay.start", "replay.fail"]


def test_approval_is_marked_as_used_before_first_side_effect(concurrently: Race, settings: Any) -> None:
    seen: list[tuple[str, bool]] = []

    def record_replay_state(handler: BaseHTTPRequestHandler) -> None:
        """Record the replay's state and respond. The database connection of the server's thread sees only commits."""
        try:
            row = Replay.objects.select_related("approval").get()
            assert row.approval is not None
            seen.append((row.status, row.approval.used_at is not None))
        finally:
            connection.close()
        respond_ok(handler)

    world = World("acme")
    with serve_http(record_replay_state) as watching:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG, replay_http_allowlist=(parse_url_prefix(watching.origin),)
        )
        replay, _ = request_approved_replay(
            world, capture_incident(world, watching, create_environment(world)), last_n=1
        )
        replay_runs.run(str(replay.pk))

    assert (status_and_error(replay), seen) == (("succeeded", None), [("running", True)])


def test_two_workers_with_same_job_run_replay_once(
    concurrently: Race, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("acme")
    replay, _ = request_approved_replay(world, capture_incident(world, receiver, create_environment(world)))
    both, unpacked = threading.Barrier(2), uploads.unpacked

    @contextmanager
    def unpack_when_both_wait(artifact: Artifact) -> Iterator[Path]:
        """Yield the folder of the unpacked artifact after both workers have read the status ``queued``."""
        with unpacked(artifact) as folder:
            both.wait(10)
            yield folder

    monkeypatch.setattr(replay_runs, "unpacked", unpack_when_both_wait)

    assert concurrently(*[lambda: replay_runs.run(str(replay.pk))] * 2) == [None, None]

    assert (status_and_error(replay), bodies(receiver)) == (("succeeded", None), PAYLOADS)
    assert audit_actions(replay).count("replay.start") == 1


def test_credential_is_used_by_only_one_of_two_concurrent_replays(concurrently: Race, receiver: Receiver) -> None:
    world = World("acme")
    artifact = capture_incident(world, receiver, create_environment(world))
    one, credential = request_approved_replay(world, artifact)
    two = request_replay(world, artifact, approval=credential)

    concurrently(lambda: replay_runs.run(str(one.pk)), lambda: replay_runs.run(str(two.pk)))

    assert sorted([status_and_error(one), status_and_error(two)]) == [("failed", "approval.used"), ("succeeded", None)]
    assert bodies(receiver) == PAYLOADS


def test_execute_replay_fails_immediately_after_unexpected_error(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = request_replay(world, capture_incident(world, receiver))

    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("not\0finite")

    monkeypatch.setattr(children, "run_in_child", broken)
    with pytest.raises(ArithmeticError, match="finite"):
        replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))

    assert status_and_error(replay) == ("failed", "ArithmeticError: not?finite")
    replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))
    assert receiver.requests == []


def test_execute_replay_of_capture_that_is_now_rejected_fails_with_bad_input(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = request_replay(world, capture_incident(world, receiver))

    def reject(folder: Path) -> None:
        raise RejectedBundle([RejectionReason("too_large", f"more than 1 byte in {folder.name}")])

    monkeypatch.setattr(replay_runs, "validate_incident", reject)
    replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))

    replay.refresh_from_db()
    assert (replay.status, replay.error_code) == ("failed", "bad_input")
    assert (replay.error or "").startswith("too_large: more than 1 byte")
    assert receiver.requests == []


def test_approval_remains_unused_while_blob_store_is_unavailable(world: World, receiver: Receiver, store: Path) -> None:
    replay, _ = request_approved_replay(world, capture_incident(world, receiver, create_environment(world)))
    store.rename(store.with_name("away"))

    with pytest.raises(Unavailable, match="store's folder is missing"):
        replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))

    assert (status_and_error(replay), Approval.objects.get().used_at) == (("queued", None), None)
    store.with_name("away").rename(store)
    replay_runs.run(str(replay.pk))
    assert status_and_error(replay) == ("succeeded", None)
