"""Tests that a chat message arrives although the worker is killed with ``kill -9`` at any step of sending it.

The message arrives once more for each kill after it was posted and before that was recorded.

By default, workers die at all steps of sending one message. ``BYTEOR_TEST_EACH_DEATH=1`` sends one message per step.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.crash.conftest import Workspace
from tests.crash.workers import Worker
from tests.patience import wait_until
from tests.tenancy.receiver import Receiver, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
MOMENTS = [
    "before handling", "after handling", "before posting", "after posting", "before recording", "after recording",
]  # fmt: skip
TWICE = {"after posting", "before recording"}  # the message has arrived, but that is not recorded
LOOPBACK = {"WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8"}


@pytest.fixture
def chat() -> Iterator[Receiver]:
    with serving() as served:
        served.statuses, served.content = [200], b"ok"
        yield served


@pytest.fixture
def chatting() -> Iterator[tuple[Workspace, Worker]]:
    """Start a workspace without a worker of its own, and a worker that dies at chosen moments."""
    workspace = Workspace(DEPLOYMENT_MODE="api", **LOOPBACK)
    worker = Worker(workspace.installation, "doomed_chat_worker", **LOOPBACK)
    try:
        yield workspace, worker
    finally:
        worker.stop()
        workspace.installation.remove()


def test_message_is_repeated_only_if_worker_dies_between_posting_and_recording_it(
    chatting: tuple[Workspace, Worker], chat: Receiver
) -> None:
    workspace, worker = chatting
    organization = workspace.environment.partition("/projects/")[0]
    hooks = f"{organization}/chat-webhooks"
    hook = workspace.post(
        hooks, {"name": "ops", "format": "slack", "url": chat.url, "events": ["rollout.stopped"]}
    )  # fmt: skip
    bundle = workspace.config_bundle()
    workspace.request("POST", f"{workspace.environment}/agents", workspace.enrollment_token(), json={})

    def count_delivered() -> int:
        found = workspace.get(f"{hooks}/{hook['id']}/deliveries")["results"]
        return [each["status"] for each in found].count("delivered")

    each_death = [[moment] for moment in MOMENTS] if "BYTEOR_TEST_EACH_DEATH" in os.environ else [MOMENTS]
    for number, dies in enumerate([[], *each_death], 1):
        begin = len(worker.printed_lines())
        worker.restart_and_die_at(dies)
        deployment = workspace.post(
            f"{workspace.environment}/deployments", {"config_bundle_id": bundle["id"], "target": {"all": True}}
        )
        workspace.post(f"{workspace.environment}/deployments/{deployment['id']}/abort", {"reason": "a test"})
        wait_until(lambda: count_delivered() == number, every_s=0.2)  # noqa: B023  ``wait_until`` calls the lambda in this iteration
        if not dies:
            wait_until(lambda: worker.printed_lines() == [f"passed {each}" for each in MOMENTS])

        def died() -> list[str]:
            lines = worker.printed_lines()[begin:]  # noqa: B023  ``wait_until`` calls the function in this iteration
            return [line.removeprefix("died ") for line in lines if line.startswith("died ")]

        wait_until(lambda: died() == dies)  # noqa: B023  ``wait_until`` calls the lambda in this iteration
        arrived = [message for message in chat.messages if deployment["id"] in json.loads(message.body)["text"]]
        assert len(arrived) == 1 + len(TWICE.intersection(dies)), dies
