"""Cancellation and progress of dry runs, and the sealed child process that runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children, replay_runs, replays
from apps.tenancy.models import AuditEvent
from byteor.engine.replay import Cancelled, DryRun
from byteor_cloud.captures.spawning import Child
from byteor_cloud.worker.process import Worker
from tests.artifacts.incidents import incident, ingested, journal
from tests.crash.conftest import lives
from tests.patience import PATIENCE_S, wait_until
from tests.races import Race
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

MANY = 8_000  # records of a slow capture whose replay runs long enough to be observed
FAR_TOO_MANY = 100_000  # records of a slow capture whose replay outlasts any test
STAGES = [{"id": "copy", "op": "identity"}]


def capture(world: World) -> Artifact:
    version = world.version(content=plan(stages=STAGES))
    return ingested(world, incident(version.spec_kv, quotes_in=journal([b'{"id":1}'])))


def slow_capture(world: World, records: int) -> Artifact:
    """Ingest a capture whose replay is slow, because a thousand rules apply to each record."""
    version = world.version(content=plan(stages=[{"id": "slow", "op": "dataguard_redact"}]))
    config = {"slow": {"rules": [f"field{number}:drop" for number in range(1000)]}}
    lines = journal([b'{"id":1}'] * records)
    return ingested(world, incident(version.spec_kv, stage_config=config, quotes_in=lines))


def cancel(world: World, row: Replay, **body: Any) -> Any:
    return world.operator.api.post(world.path(rest=f"/replays/{row.pk}/cancel"), body)


def test_canceled_queued_dry_run_does_not_run(world: World) -> None:
    row = replays.request(capture(world), environment=world.dev, actor=world.operator.actor)

    response = cancel(world, row, reason="wrong version")

    assert response.status_code == 200
    assert (response.json()["status"], response.json()["error_code"]) == ("failed", "cancelled")
    assert response.json()["error"] == "cancelled: wrong version"
    run_jobs()
    row.refresh_from_db()
    assert (row.status, row.started_at, row.result) == ("failed", None, None)
    assert cancel(world, row).status_code == 409
    assert AuditEvent.objects.filter(action="replay.fail").count() == 1


@pytest.mark.parametrize("mode", ["dry_run", "execute"])
def test_execute_replays_and_finished_dry_runs_cannot_be_canceled(world: World, mode: str) -> None:
    world.dev.settings["replay_policy"] = "allowed"
    world.dev.save()
    row = replays.request(capture(world), environment=world.dev, mode=mode, actor=world.operator.actor)
    if mode == "dry_run":
        run_jobs()

    response = cancel(world, row)

    assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (
        409,
        "replay.ended" if mode == "dry_run" else "replay.not_dry_run",
    )
    assert row.status == Replay.objects.get().status or mode == "dry_run"


def test_viewers_cannot_cancel_replays(world: World) -> None:
    row = replays.request(capture(world), environment=world.dev, actor=world.operator.actor)

    assert world.viewer.api.post(world.path(rest=f"/replays/{row.pk}/cancel"), {}).status_code == 403


def test_running_dry_run_shows_progress_and_can_be_canceled(concurrently: Race) -> None:
    world = World("acme")
    row = replays.request(slow_capture(world, FAR_TOO_MANY), environment=world.dev, actor=world.operator.actor)
    path = world.path(rest=f"/replays/{row.pk}")
    worker = threading.Thread(target=run_jobs)
    worker.start()

    wait_until(lambda: (world.viewer.api.get(path).json()["progress"] or {}).get("total"))
    response = cancel(world, row)
    worker.join(PATIENCE_S)

    assert not worker.is_alive()
    assert response.status_code == 200, response.json()
    assert world.viewer.api.get(path).json()["progress"] is None
    row.refresh_from_db()
    assert (row.status, row.error_code, row.result) == ("failed", "cancelled", None)


def test_dry_run_is_repeated_after_its_worker_stops(concurrently: Race) -> None:
    world = World("acme")
    row = replays.request(slow_capture(world, MANY), environment=world.dev, actor=world.operator.actor)
    worker = Worker(grace_s=0.1)
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait_until(lambda: Replay.objects.get().status == "running")
    worker.stop()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert Replay.objects.get().status == "running"
    run_jobs()
    row.refresh_from_db()
    assert (row.status, row.result["egress"]["quotes_out"]["records"]) == ("succeeded", MANY)
    assert AuditEvent.objects.filter(action="replay.succeed").count() == 1


# -- the child process


def request(tmp_path: Path) -> dict[str, Any]:
    return {"kind": "replay", "folder": str(tmp_path)}


def test_crash_of_child_process_raises_child_died(tmp_path: Path) -> None:
    with pytest.raises(children.ChildDied):
        children.run_in_child({"kind": "nothing"}, scratch=tmp_path)


def test_unusable_capture_raises_refused(tmp_path: Path) -> None:
    with pytest.raises(children.Refused, match="missing_file"):
        children.run_in_child(request(tmp_path), scratch=tmp_path)


def test_silent_or_canceled_child_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Child] = []

    def stopped(*arguments: Any, **options: Any) -> Child:
        """Start a process that does not respond."""
        started.append(Child(*arguments, **options))
        os.kill(started[-1].pid, signal.SIGSTOP)
        return started[-1]

    monkeypatch.setattr(children, "Child", stopped)
    with pytest.raises(children.TookTooLong):
        children.run_in_child(request(tmp_path), scratch=tmp_path, silence_s=0.1)
    with pytest.raises(Cancelled):
        children.run_in_child(request(tmp_path), scratch=tmp_path, on_tick=lambda _: False)

    assert [process.kill() for process in started] == [-signal.SIGKILL] * 2


def test_hanging_dry_run_times_out_and_can_be_retried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replays.request(capture(world), environment=world.dev, actor=world.operator.actor)
    run_in_child = children.run_in_child

    def stopped(*arguments: Any, **options: Any) -> Child:
        process = Child(*arguments, **options)
        os.kill(process.pid, signal.SIGSTOP)
        return process

    with monkeypatch.context() as patch:
        patch.setattr(children, "Child", stopped)
        patch.setattr(children, "run_in_child", partial(run_in_child, silence_s=0.1))
        with pytest.raises(children.TookTooLong, match="sent nothing for"):
            replay_runs.run(str(row.pk))
    row.refresh_from_db()
    assert (row.status, row.result) == ("running", None)

    run_jobs()  # as when the job is retried

    row.refresh_from_db()
    assert (row.status, row.result["egress"]["quotes_out"]["records"]) == ("succeeded", 1)


def test_silence_timer_kills_child_process_with_blocked_interpreter() -> None:
    code = (
        "import re\nfrom byteor_cloud.captures import process\nprocess.SILENCE_S = 1\n"
        "parent = process._Parent()\nre.match(r'(a+)+$', 'a' * 60 + 'b')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGPROF


def test_silence_timer_pauses_while_child_process_is_paused() -> None:
    code = (
        "import sys\nfrom byteor_cloud.captures import process\nprocess.SILENCE_S = 1\n"
        "parent = process._Parent()\nparent.receive_request()\nsys.exit(7)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write(b"1\n")
        process.stdin.flush()
        assert process.wait(PATIENCE_S) == 7


def test_paused_child_process_dies_with_its_parent() -> None:
    code = (
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'byteor_cloud.captures.process'], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE, start_new_session=True)\n"
        "assert b'dies_with_parent' in child.stdout.readline()\nos.kill(child.pid, signal.SIGSTOP)\n"
        "os.waitpid(child.pid, os.WUNTRACED)\nprint(child.pid, flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        wait_until(lambda: not lives(child))


def test_child_process_exits_when_its_input_is_closed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "byteor_cloud.captures.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 1


def test_output_printed_by_ops_reaches_neither_worker_nor_log() -> None:
    code = (
        "import sys\nfrom byteor_cloud.captures.process import _Parent\nparent = _Parent()\n"
        "print('an op prints this', flush=True)\nprint('and this', file=sys.stderr)\nparent.send(outcome=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ('{"outcome": 1}\n', "")


@pytest.mark.parametrize(
    "act",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('localhost', 9)",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
    ],
)
def test_sealed_process_cannot_use_network_or_start_programs(act: str) -> None:
    code = f"from byteor_cloud.captures.process import seal; seal()\n{act}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Forbidden" in done.stderr


def test_side_effect_requested_by_child_process_of_dry_run_raises_child_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    child = SimpleNamespace(socket=ours, pid=0, kill=ours.close)
    effect = {"stage": "s", "op": "exec:/bin/true", "payload": ""}
    theirs.sendall(json.dumps({"effect": effect}).encode() + b"\n")
    monkeypatch.setattr(children, "Child", lambda *_, **__: child)

    # If ``DryRun.perform`` was called, it would raise AssertionError.
    with theirs, pytest.raises(children.ChildDied, match="not permitted"):
        children.run_in_child({"kind": "replay"}, scratch=tmp_path, effects=DryRun())
