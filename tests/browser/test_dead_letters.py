"""Dead letters in the console: who may see and retry them, and what their list and pages show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.jobs import IngestArtifact, RunReplay
from apps.fleet.jobs import WelcomeAgent, WelcomeAgents
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
    assert "<td>Retried</td>" in client.get(row_page(made.job)).text
    event = AuditEvent.objects.get(action="job.retry")
    assert (event.organization_id, event.environment_id) == (world.organization.pk, made.deployment.environment_id)
    assert (event.resource_id, event.changes) == (str(made.job.pk), {"task": "releases.step"})
    again = client.post(act(made.job, "retry"), YES, follow=True)
    assert shown_messages(again)[0][1].endswith("The job is waiting. Only a failed job can be retried.")
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


def test_jobs_are_shown_with_title_and_what_they_are_about(world: World) -> None:
    made = fill(world)
    webhook = Webhook.objects.get()
    letters = {
        made.job: ("Continue a rollout or rollback", row_page(made.deployment)),
        dead_letter(DeliverWebhooks(webhook_id=str(webhook.pk))): ("Send webhook deliveries", row_page(webhook)),
        dead_letter(WelcomeAgents(agent_ids=f"{made.agent.pk},{uuid7()}")): (
            "Offer agents their deployments",
            "2 agents",
        ),
        dead_letter(SEAL_AUDIT): ("Seal audit events", "Installation"),
        dead_letter(UndoBreakGlass(deployment_id=str(uuid7()))): ("Undo a break-glass deployment", ""),
    }
    client = signed_in(superuser())

    listed = client.get(table(ProcrastinateJob), {"status__exact": "failed"})

    admin = listed.context["cl"].model_admin
    shown = {row.pk: (admin.title(row), admin.about(row)) for row in listed.context["cl"].result_list}
    for job, (title, about) in letters.items():
        assert title in shown[job.pk][0]
        assert about in shown[job.pk][1]
        assert about in dict(client.get(row_page(job)).context["summary"]["facts"])["About"]


def test_job_page_shows_last_error_and_history(world: World) -> None:
    made = fill(world)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs SET byteor_errors = 5, byteor_error = 'ValueError: <x>' WHERE id = %s",
            [made.job.pk],
        )
        cursor.execute(
            "INSERT INTO procrastinate_events (job_id, type, at) VALUES (%(job)s, 'deferred', now()),"
            " (%(job)s, 'failed', now())",
            {"job": made.job.pk},
        )

    page = signed_in(world.viewer.user).get(row_page(made.job))

    facts = dict(page.context["summary"]["facts"])
    assert facts["Last error"] == "<code>ValueError: &lt;x&gt;</code>"
    assert "5 errors" in facts["Attempts"]
    assert [event for event, _ in page.context["summary"]["panels"][0]["rows"]] == ["Failed permanently", "Enqueued"]
