"""Dead letters in the console: who may see them, and who may retry them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.jobs import IngestArtifact, RunReplay
from apps.fleet.jobs import WelcomeAgent
from apps.releases.jobs import ReplayDecided, StepRollout, UndoBreakGlass
from apps.releases.models import Approval
from apps.tenancy.jobs import SEAL_AUDIT, DeliverWebhooks
from apps.tenancy.models import (
    AuditEvent,
    Webhook,
)
from byteor_cloud.ids import uuid7
from tests.browser.confirmed import YES, shown_messages
from tests.browser.filled import act, fill, row_page, signed_in, superuser, table
from tests.resources.jobs import dead_letter
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_dead_letter_can_be_retried(world: World, run_jobs: Callable[[], int]) -> None:
    made = fill(world)
    run_jobs()
    client = signed_in(world.operator.user)

    client.post(act(made.job, "retry"), YES, follow=True)

    assert ProcrastinateJob.objects.get(pk=made.job.pk).status == "todo"
    event = AuditEvent.objects.get(action="job.retry")
    assert (event.organization_id, event.environment_id) == (world.organization.pk, made.deployment.environment_id)
    assert (event.resource_id, event.changes) == (str(made.job.pk), {"task": "releases.step"})
    again = client.post(act(made.job, "retry"), YES, follow=True)
    assert shown_messages(again)[0][1].endswith("The job is todo. Only a failed job can be retried.")
    run_jobs()
    assert not ProcrastinateJob.objects.filter(pk=made.job.pk).exists()


def test_superuser_can_retry_installation_job(world: World) -> None:
    job = dead_letter(SEAL_AUDIT)

    signed_in(superuser()).post(act(job, "retry"), YES)

    assert ProcrastinateJob.objects.get(pk=job.pk).status == "todo"
    assert AuditEvent.objects.get(action="job.retry").organization_id is None


def jobs_seen(person: Any) -> set[str]:
    page = signed_in(person).get(table(ProcrastinateJob), {"status__exact": "failed"})
    return {job.task_name for job in page.context["cl"].result_list} if page.status_code == 200 else set()


def test_dead_letter_is_visible_to_people_who_see_its_subject(world: World, other: World) -> None:
    made = fill(world)
    approval, webhook = Approval.objects.get(), Webhook.objects.filter(organization=world.organization)[0]
    decided = dead_letter(ReplayDecided(approval_id=str(approval.pk)))
    letters = [
        dead_letter(StepRollout(deployment_id=str(made.deployment.pk))),
        dead_letter(WelcomeAgent(agent_id=str(made.agent.pk))),
        dead_letter(IngestArtifact(artifact_id=str(made.artifact.pk))),
        dead_letter(RunReplay(replay_id=str(made.replay.pk))),
        decided,
    ]
    about = {job.task_name for job in letters}
    hook = dead_letter(DeliverWebhooks(webhook_id=str(webhook.pk)))
    of_nobody = [dead_letter(SEAL_AUDIT), dead_letter(UndoBreakGlass(deployment_id=str(uuid7())))]
    everything = {*about, hook.task_name, *(job.task_name for job in of_nobody)}

    assert jobs_seen(world.viewer.user) == jobs_seen(world.operator.user) == about
    assert jobs_seen(world.admin.user) == {*about, hook.task_name}
    assert jobs_seen(other.admin.user) == jobs_seen(other.viewer.user) == set()
    assert jobs_seen(superuser()) == everything

    # Viewers may not retry any of the jobs. Operators and other organizations' admins may not retry the webhook job.
    for job in letters:
        assert signed_in(world.viewer.user).post(act(job, "retry"), YES).status_code == 403
        assert act(job, "retry") not in signed_in(world.viewer.user).get(row_page(job)).text
    signed_in(world.operator.user).post(act(hook, "retry"), YES)
    signed_in(other.admin.user).post(act(hook, "retry"), YES)
    assert ProcrastinateJob.objects.get(pk=hook.pk).status == "failed"
    signed_in(world.admin.user).post(act(hook, "retry"), YES)
    signed_in(world.operator.user).post(act(decided, "retry"), YES)
    for job in (hook, decided):
        assert ProcrastinateJob.objects.get(pk=job.pk).status == "todo"
    scopes = AuditEvent.objects.filter(action="job.retry").values_list("resource_id", "organization_id")
    assert dict(scopes) == dict.fromkeys((str(hook.pk), str(decided.pk)), world.organization.pk)
