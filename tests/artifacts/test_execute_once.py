"""An execute replay runs once, and never again by itself: interrupted, broken off, or taken by two workers."""

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

from apps.artifacts import effects
from apps.artifacts.jobs import RunReplay
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays, uploads
from apps.artifacts.tasks import replay as replay_job
from apps.releases.models import Approval
from byteor_cloud.engine.allowlist import parse_url_prefix
from byteor_cloud.engine.replay import IncidentBundle
from byteor_cloud.errors import Unavailable
from byteor_cloud.jobs import Claim
from tests.artifacts.execute_steps import allowing, approved, asked, bodies, captured, ended, events
from tests.artifacts.incidents import PAYLOADS
from tests.artifacts.servers import Receiver, plainly, receiving
from tests.races import Race
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


class Killed(BaseException):
    """The worker is gone."""


def test_interrupted_it_is_failed_and_not_run_again(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = asked(world, captured(world, receiver))
    post = effects.Executor._post

    def die_after_the_first(*arguments: Any) -> None:
        post(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(effects.Executor, "_post", die_after_the_first)
        with pytest.raises(Killed):
            replays.run(str(replay.pk))
    assert (ended(replay), bodies(receiver)) == (("running", None), PAYLOADS[:1])

    replays.run(str(replay.pk))

    assert (ended(replay), bodies(receiver)) == (("failed", "interrupted"), PAYLOADS[:1])
    replays.run(str(replay.pk))
    assert len(receiver.came) == 1
    assert events(replay) == ["replay.request", "replay.start", "replay.fail"]


def test_it_says_running_and_has_spent_the_approval_before_anything_leaves(at_once: Race, settings: Any) -> None:
    seen: list[tuple[str, bool]] = []

    def look(handler: BaseHTTPRequestHandler) -> None:
        """On the server's own connection, which sees only what is committed."""
        try:
            row = Replay.objects.select_related("approval").get()
            assert row.approval is not None
            seen.append((row.status, row.approval.used_at is not None))
        finally:
            connection.close()
        plainly(handler)

    world = World("acme")
    with receiving(look) as watching:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG, replay_http_allowlist=(parse_url_prefix(watching.origin),)
        )
        replay, _ = approved(world, captured(world, watching, allowing(world)), last_n=1)
        replays.run(str(replay.pk))

    assert (ended(replay), seen) == (("succeeded", None), [("running", True)])


def test_two_workers_with_the_same_job_run_it_once(
    at_once: Race, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("acme")
    replay, _ = approved(world, captured(world, receiver, allowing(world)))
    both, unpacked = threading.Barrier(2), uploads.unpacked

    @contextmanager
    def together(artifact: Artifact) -> Iterator[IncidentBundle]:
        """Both have seen it queued."""
        with unpacked(artifact) as bundle:
            both.wait(10)
            yield bundle

    monkeypatch.setattr(replays, "unpacked", together)

    assert at_once(*[lambda: replays.run(str(replay.pk))] * 2) == [None, None]

    assert (ended(replay), bodies(receiver)) == (("succeeded", None), PAYLOADS)
    assert events(replay).count("replay.start") == 1


def test_two_replays_at_once_with_one_credential(at_once: Race, receiver: Receiver) -> None:
    world = World("acme")
    artifact = captured(world, receiver, allowing(world))
    one, credential = approved(world, artifact)
    two = asked(world, artifact, approval=credential)

    at_once(lambda: replays.run(str(one.pk)), lambda: replays.run(str(two.pk)))

    assert sorted([ended(one), ended(two)]) == [("failed", "approval.used"), ("succeeded", None)]
    assert bodies(receiver) == PAYLOADS


def test_broken_off_it_is_failed_at_once(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = asked(world, captured(world, receiver))

    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("not\0finite")

    monkeypatch.setattr(replays, "replay", broken)
    with pytest.raises(ArithmeticError, match="finite"):
        replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))

    assert ended(replay) == ("failed", "ArithmeticError: not?finite")
    replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))
    assert receiver.came == []


def test_a_store_that_does_not_answer_costs_no_approval(world: World, receiver: Receiver, store: Path) -> None:
    replay, _ = approved(world, captured(world, receiver, allowing(world)))
    store.rename(store.with_name("away"))

    with pytest.raises(Unavailable, match="store's folder is missing"):
        replay_job(Claim(), RunReplay(replay_id=str(replay.pk)))

    assert (ended(replay), Approval.objects.get().used_at) == (("queued", None), None)
    store.with_name("away").rename(store)
    replays.run(str(replay.pk))
    assert ended(replay) == ("succeeded", None)
