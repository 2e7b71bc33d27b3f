"""The worker's jobs."""

from __future__ import annotations

import json

from django.db import connection
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.releases.jobs import StepRollout
from byteor_cloud.worker.jobs import Job, Periodic
from tests.permissions import OPERATE, VIEW
from tests.resources import ERROR, MACHINE, Act, Place, Resource, Table
from tests.resources.deployments import deployment


def dead_letter(job: Job | Periodic) -> ProcrastinateJob:
    """Create a dead letter of the job."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args, status, attempts)"
            " VALUES ('default', %s, NULL, %s::jsonb, 'failed', 5) RETURNING id",
            [job.name, json.dumps(vars(job) if isinstance(job, Job) else {})],
        )
        (pk,) = cursor.fetchone()
    row: ProcrastinateJob = ProcrastinateJob.objects.get(pk=pk)
    return row


def job(place: Place) -> ProcrastinateJob:
    return dead_letter(StepRollout(deployment_id=str(place.get(deployment).pk)))


RESOURCE = Resource(
    tables=(
        Table(
            "procrastinate.procrastinatejob", VIEW, job, acts={"retry": Act(needs=OPERATE)},
            large=frozenset({"args"}),
            short={
                "lock": MACHINE, "queueing_lock": MACHINE, "byteor_person": "an id",
                "byteor_error": ERROR,
            },
        ),
    ),
)  # fmt: skip
