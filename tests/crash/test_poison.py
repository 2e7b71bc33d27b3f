"""Tests that a job that kills ten workers becomes a dead letter, while other jobs continue."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.jobs import IngestArtifact, RunReplay
from apps.artifacts.models import Artifact, Replay
from apps.releases.jobs import BuildBundle
from apps.releases.models import Deployment, KnownBad
from byteor_cloud.worker.jobs import KILLS
from byteor_cloud.worker.process import Worker
from tests.artifacts import incidents
from tests.artifacts.incidents import incident, ingested
from tests.patience import PATIENCE_S
from tests.races import concurrently
from tests.worlds import World, run_jobs

__all__ = ["concurrently"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("concurrently"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


def kill_in(job: str) -> None:
    """Run workers until the job has killed ten of them, and then one that survives. Skips the backoff."""
    here = connection.settings_dict
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings",
        "BYTEOR_EMBEDDED_DATABASE_URL": f"postgresql://{here['USER']}@/{here['NAME']}?host={here['HOST']}",
        "BYTEOR_CLOUD_DATA_DIR": str(django_settings.CONFIG.data_dir),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.poisoned_worker", job],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as workers:  # fmt: skip
        assert workers.stdin is not None
        assert workers.stdout is not None
        for _ in range(KILLS):
            Worker(has_clock=False)._maintain_queue()  # takes over the job if its worker died
            with connection.cursor() as cursor:
                cursor.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")
            workers.stdin.write("go\n")
            workers.stdin.flush()
            assert workers.stdout.readline() == "died\n"
        workers.stdin.close()
        assert workers.wait(PATIENCE_S) == 0


@pytest.fixture
def made() -> Any:
    """Create two organizations. Queue an ingest, a replay and a build for the first, and a build for the other."""
    acme, other = World("acme"), World("other")
    agent, api = acme.agent()
    version = acme.version()
    first = ingested(acme, incident(version.spec_kv))
    bundle, theirs = acme.bundle(version=version), other.bundle()
    other.agent()
    run_jobs()
    incidents.upload(
        api, agent, incident(version.spec_kv, quotes_in=incidents.journal([b"{}"])), kind="incident_bundle"
    )
    acme.operator.api.post(acme.path(rest=f"/artifacts/{first.pk}/replay"), {})
    acme.deployment(bundle)
    other.deployment(theirs)
    return acme


def outcome() -> dict[str, Any]:
    return {
        "artifacts": sorted(Artifact.objects.values_list("status", flat=True)),
        "replay": Replay.objects.values_list("status", "error").get(),
        "deployments": [*Deployment.objects.order_by("pk").values_list("status", flat=True)],
        "dead": [*ProcrastinateJob.objects.values_list("task_name", "status", "attempts")],
    }


WELL = {
    "artifacts": ["verified", "verified"],
    "replay": ("succeeded", None),
    "deployments": ["deploying", "deploying"],
}


@pytest.mark.parametrize(
    ("job", "differs"),
    [
        (IngestArtifact.name, {"artifacts": ["rejected", "verified"]}),
        (RunReplay.name, {"replay": ("failed", "interrupted")}),
        (BuildBundle.name, {"deployments": ["approved", "approved"]}),
    ],
)
def test_job_that_kills_ten_workers_becomes_dead_letter(made: World, job: str, differs: dict[str, Any]) -> None:
    if job == BuildBundle.name:  # the other organization's build would also kill the worker
        Deployment.objects.exclude(environment=made.dev).delete()
        ProcrastinateJob.objects.filter(task_name=job).exclude(
            queue_name__endswith=made.organization.pk.hex
        )._raw_delete("default")
        differs = {"deployments": ["approved"]}

    kill_in(job)

    assert outcome() == {**WELL, **differs, "dead": [(job, "failed", KILLS)]}
    if job == IngestArtifact.name:
        (reason,) = Artifact.objects.get(status="rejected").reasons
        assert reason["code"] == "worker_killed"
    assert not KnownBad.objects.exists()
