"""Tests that replays and bisects finish once and repeat no side effects when workers are killed or stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection

from apps.artifacts.models import Replay
from apps.artifacts.services import replays
from apps.tenancy.models import AuditEvent
from byteor_cloud.worker.process import Worker
from tests.artifacts.incidents import PAYLOADS, incident, ingested
from tests.artifacts.test_cancel import MANY, slow_capture
from tests.artifacts.test_turns import is_stopped
from tests.crash.conftest import Workspace, lives
from tests.patience import PATIENCE_S, wait_until
from tests.races import concurrently
from tests.system.conftest import children
from tests.worlds import World, plan

__all__ = ["concurrently"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def promote(workspace: Workspace, name: str, *stages: dict[str, Any]) -> Any:
    """Create a version of a pipeline with these stages in a row."""
    for before, stage in pairwise(stages):
        stage["depends_on"] = [before["id"]]
    content = {"name": f"{name} {len(stages)} {stages[0]['id']}", "plan": plan(name, stages=list(stages))}
    draft = workspace.post(f"{workspace.environment}/drafts", content)
    return workspace.post(f"{workspace.environment}/drafts/{draft['id']}/version", {})


def capture(workspace: Workspace, spec_kv: str, **options: Any) -> str:
    """Upload an incident as a new agent, wait until it is verified, and return the path of its artifact."""
    enrolled = workspace.request("POST", f"{workspace.environment}/agents", workspace.enrollment_token(), json={})
    uploaded = workspace.request(
        "POST", f"/api/v1/agents/{enrolled.json()['agent_id']}/artifacts", enrolled.json()["api_key"],
        data={"kind": "incident_bundle", "captured_at": "2026-11-01T10:00:00Z"},
        files={"file": incident(spec_kv, **options)},
    )  # fmt: skip
    artifact = f"{workspace.environment}/artifacts/{uploaded.json()['id']}"
    wait_until(lambda: workspace.get(artifact)["status"] == "verified")
    return artifact


def stop_next_replay(worker: int) -> int:
    """Wait for the worker's next replay process, stop it with SIGSTOP, and return its id."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [pid for pid, line in children(worker).items() if "byteor_cloud.captures.process" in line]
        return bool(found)

    wait_until(is_there, every_s=0.01)
    os.kill(found[0], signal.SIGSTOP)
    return found[0]


def kill_during_replay(workspace: Workspace) -> None:
    """Kill the worker during its next replay, and wait until the replay's process has exited."""
    worker = workspace.worker()
    child = stop_next_replay(worker)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not lives(worker))
    os.kill(child, signal.SIGCONT)
    wait_until(lambda: not lives(child))


def events(workspace: Workspace, row: str) -> list[str]:
    """Return the audit actions about a row, oldest first."""
    organization = workspace.environment.partition("/projects/")[0]
    found = workspace.get(f"{organization}/audit-events?resource_id={row}")["results"]
    return [each["action"] for each in reversed(found)]


def test_killed_execute_replay_fails_without_repeated_effects(workspace: Workspace, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    log = tmp_path / "effects"
    version = promote(
        workspace, "noting", {"id": "note", "op": f"exec:/bin/sh|-c|cat >> {log}; echo >> {log}; sleep 1"}
    )
    artifact = capture(workspace, version["spec_kv"])
    replay = workspace.request("POST", f"{artifact}/replay", json={"mode": "execute"}).json()

    wait_until(lambda: log.exists() and log.read_bytes() == PAYLOADS[0] + b"\n")
    os.kill(workspace.worker(), signal.SIGKILL)

    path = f"{workspace.environment}/replays/{replay['id']}"
    wait_until(lambda: workspace.get(path)["status"] != "running")
    final = workspace.get(path)
    assert (final["status"], final["error"], final["result"]) == ("failed", "interrupted", None)
    assert log.read_bytes() == PAYLOADS[0] + b"\n"


def test_killed_dry_run_is_rerun_and_finishes_once(workspace: Workspace) -> None:
    artifact = capture(workspace, promote(workspace, "dry", {"id": "copy", "op": "identity"})["spec_kv"])
    replay = workspace.request("POST", f"{artifact}/replay", json={}).json()

    kill_during_replay(workspace)

    path = f"{workspace.environment}/replays/{replay['id']}"
    wait_until(lambda: workspace.get(path)["status"] not in {"queued", "running"})
    final = workspace.get(path)
    assert (final["status"], final["result"]["egress"]["quotes_out"]["records"]) == ("succeeded", 3)
    assert events(workspace, replay["id"]) == ["replay.request", "replay.start", "replay.succeed"]
    # Without the worker's unpacked files, an API process unpacks the capture again.
    shutil.rmtree(workspace.installation.data_dir / "captures")
    (record,) = workspace.get(f"{path}/trace?sequence=2")["records"]
    assert [step["json"] for step in record["steps"]][-1] == {"no": "id"}
    assert len(workspace.get(f"{artifact}/journal/quotes_in")["results"]) == 3


def test_killed_bisect_finishes_once_and_finds_first_bad_version(workspace: Workspace) -> None:
    limit = {"id": "limit", "op": "dataguard_check"}
    copies = [{"id": f"copy-{number}", "op": "identity"} for number in range(4)]
    versions = [
        promote(workspace, "halves", copy, *([limit] if number > 1 else [])) for number, copy in enumerate(copies)
    ]
    config = {"limit": {"schema": False, "on_reject": "stop"}}
    artifact = capture(workspace, versions[3]["spec_kv"], stage_config=config)
    bisect = workspace.request("POST", f"{artifact}/bisect", json={"predicate": "fails"}).json()

    kill_during_replay(workspace)

    path = f"{workspace.environment}/bisects/{bisect['id']}"
    wait_until(lambda: workspace.get(path)["status"] not in {"queued", "running"})
    final = workspace.get(path)
    assert (final["status"], final["outcome"], final["first_bad"]) == ("succeeded", "found", versions[2]["id"])
    assert events(workspace, bisect["id"]) == ["bisect.request", "bisect.start", "bisect.succeed"]
    used = [each["replay_id"] for each in final["versions"] if each["replay_id"]]
    assert len(used) == len(set(used)) <= 4
    for replay in used:
        assert len([each for each in events(workspace, replay) if each in {"replay.succeed", "replay.fail"}]) == 1


STOPPABLE = """
import signal, django
django.setup()
from byteor_cloud.worker.process import Worker
worker = Worker(has_clock=False, grace_s=0.5)
signal.signal(signal.SIGTERM, lambda *_: worker.stop())
worker.run()
"""


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker process that uses the test's database."""
    here = connection.settings_dict
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings",
        "BYTEOR_EMBEDDED_DATABASE_URL": f"postgresql://{here['USER']}@/{here['NAME']}?host={here['HOST']}",
        "BYTEOR_CLOUD_DATA_DIR": str(django_settings.CONFIG.data_dir),
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("concurrently")
def test_dry_run_that_outlasts_grace_period_is_left_to_next_worker() -> None:
    world = World("acme")
    artifact = ingested(world, incident(world.version().spec_kv))
    row = replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    with subprocess.Popen([sys.executable, "-c", STOPPABLE], env=worker_environment()) as worker:
        child = stop_next_replay(worker.pid)  # the stopped replay takes longer than any grace period
        worker.terminate()
        assert worker.wait(PATIENCE_S) == 0
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)
    wait_until(lambda: not lives(child))
    assert Replay.objects.get().status == "running"

    Worker(has_clock=False).run(until_idle=True)

    row.refresh_from_db()
    assert (row.status, row.result["egress"]["quotes_out"]["records"]) == ("succeeded", 3)
    assert list(AuditEvent.objects.filter(resource_id=str(row.pk)).order_by("id").values_list("action", flat=True)) == [
        "replay.request", "replay.start", "replay.succeed",
    ]  # fmt: skip


SHORT_TURNS = """
from byteor_cloud.worker import turns
turns.SHORT_S = turns.QUANTUM_S = 0.2
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("concurrently")
def test_killed_worker_leaves_no_paused_process_and_loses_no_replay() -> None:
    worlds = [World(name) for name in ("ann", "bob", "cleo")]
    captures = [slow_capture(world, MANY) for world in worlds]
    rows = [
        replays.request(artifact, environment=world.dev, actor=world.operator.actor)
        for world, artifact in zip(worlds, captures, strict=True)
    ]
    with subprocess.Popen([sys.executable, "-c", SHORT_TURNS + STOPPABLE], env=worker_environment()) as worker:
        processes: dict[int, str] = {}

        def one_is_paused() -> bool:
            """Stop the worker. Return whether it has a paused process, and continue the worker if not."""
            os.kill(worker.pid, signal.SIGSTOP)
            processes.update(children(worker.pid))
            if any(is_stopped(pid) for pid in processes):
                return True
            os.kill(worker.pid, signal.SIGCONT)
            return False

        try:
            wait_until(one_is_paused, every_s=0.1)
        finally:
            worker.kill()
    wait_until(lambda: not any(lives(pid) for pid in processes))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'artifacts.replay'")
        assert cursor.fetchone() == (len(rows),)

    Worker(has_clock=False).run(until_idle=True)

    for row in rows:
        row.refresh_from_db()
        assert (row.status, row.result["egress"]["quotes_out"]["records"]) == ("succeeded", MANY)
    assert AuditEvent.objects.filter(action="replay.succeed").count() == len(rows)
