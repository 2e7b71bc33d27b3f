"""A tenant with a row in every table of the console, and people signed in to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Bisect, Replay, UnreferencedBlob
from apps.console.frame import site
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.jobs import StepRollout
from apps.releases.models import Deployment
from apps.releases.services import bundles
from apps.tenancy.models import AuditEvent, IdempotencyKey, RateCounter, User, WebhookDelivery
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, audit, ledger, tokens
from apps.tenancy.services.webhooks import subscriptions
from byteor_cloud import urls  # noqa: F401  it registers the console's tables
from byteor_cloud.ids import uuid7
from byteor_cloud.worker.jobs import Job, Periodic
from tests.recorded import recorded
from tests.worlds import Api, World, report, run_jobs

DJANGO_BACKEND = "apps.tenancy.sessions.Accounts"
MODELS = {model._meta.label_lower: model for model in site._registry}


def signed_in(user: User) -> Client:
    """Return a Django test client that is signed in as the person."""
    client = Client(headers={"accept": "text/html"}, REMOTE_ADDR="192.0.2.7")
    client.force_login(user, backend=DJANGO_BACKEND)
    return client


def superuser() -> User:
    """Create a superuser."""
    return User.objects.create(email="root@host.example", email_verified=True, is_superuser=True)


def table(model: Any) -> str:
    """Return the URL of the model's table."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def row_page(row: Any) -> str:
    """Return the URL of the row's page."""
    return f"{table(type(row))}{quote(row.pk)}/change/"


def act(row: Any, name: str) -> str:
    """Return the URL of one of the row's acts."""
    return f"{table(type(row))}{quote(row.pk)}/act/{name}/"


@dataclass
class Filled:
    """The rows that ``fill`` created and that tests refer to."""

    agent: Agent
    agent_api: Api
    deployment: Deployment
    artifact: Artifact
    replay: Replay
    job: ProcrastinateJob


def dead_letter(job: Job | Periodic) -> ProcrastinateJob:
    """Create a dead letter."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args, status, attempts)"
            " VALUES ('default', %s, NULL, %s::jsonb, 'failed', 5) RETURNING id",
            [job.name, json.dumps(vars(job) if isinstance(job, Job) else {})],
        )
        (pk,) = cursor.fetchone()
    row: ProcrastinateJob = ProcrastinateJob.objects.get(pk=pk)
    return row


def fill(world: World, suffix: str = "1") -> Filled:
    """Add a row to every table of the tenant, such as an active deployment and an incident.

    Later calls, after the same events in the audit ledger, insert the same rows again.
    """
    return recorded(("filled", world.name, suffix), lambda: _fill(world, suffix))


def _fill(world: World, suffix: str) -> Filled:
    environment = world.environment("prod", f"{world.name}-{suffix}")
    agent, agent_api = world.agent(environment, f"{world.name}-agent-{suffix}")
    bundle = world.bundle(environment, f"{world.name}-bundle-{suffix}")
    deployment = world.deployment(bundle)
    decision = {"deployment_id": str(deployment.pk), "decision": "approve", "comment": f"{world.name} agrees"}
    assert world.reviewer.api.post(world.path(environment, "/approvals"), decision).status_code == 201
    run_jobs()
    assert report(agent_api, agent, "active").status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    tokens.create_organization_key(
        organization=world.organization, name=f"{world.name}-key-{suffix}", role=Role.OPERATOR,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    bundles.mark_known_bad(
        environment, "sha256:" + "b" * 64, reason=f"{world.name} saw it fail", actor=world.admin.actor
    )
    webhook, _ = subscriptions.create(
        organization=world.organization, url=f"https://{world.name}.example/{suffix}", events=["approval.expire"],
        actor=world.admin.actor,
    )  # fmt: skip
    event = AuditEvent.objects.filter(organization=world.organization).latest("id")
    WebhookDelivery.objects.create(webhook=webhook, event=event, status="delivered")
    audit.count_denial(f"test.{suffix}", actor=world.viewer.actor, organization_id=world.organization.pk)
    ledger.seal_chain(world.organization.pk)
    artifact = Artifact.objects.create(
        environment=environment, agent=agent, deployment=deployment, version=bundle.version, kind="incident_bundle",
        status="verified", spec_hash=bundle.version.spec_hash, content_hash="sha256:" + "a" * 64, size_bytes=10,
        captured_at=timezone.now(),
    )  # fmt: skip
    replay = Replay.objects.create(
        environment=environment, artifact=artifact, version=bundle.version, requested_by=world.operator.actor.display
    )
    job = dead_letter(StepRollout(deployment_id=str(deployment.pk)))
    Bisect.objects.create(
        environment=environment, artifact=artifact, predicate="fails", versions=[],
        requested_by=world.operator.actor.display,
    )  # fmt: skip
    return Filled(agent, agent_api, deployment, artifact, replay, job)


def add_siblings(world: World, made: Filled) -> None:
    """Add two more rows of what pages of rows list: versions of a pipeline, deployments, captures, replays, bisects."""
    environment, by = made.deployment.environment, world.operator.actor.display
    for number in (1, 2):
        first = made.artifact.version
        assert first is not None
        version = Version.objects.get(pk=first.pk)
        version.pk, version.number = uuid7(), first.number + number
        version.save(force_insert=True)
        world.deployment(world.bundle(environment, f"bundle {number}", version=version))
        artifact = Artifact.objects.create(
            environment=environment, agent=made.agent, version=version, kind="incident_bundle", status="rejected",
            content_hash="sha256:" + str(number) * 64, size_bytes=10, captured_at=timezone.now(),
            reasons=[{"code": "x", "detail": "y"}],
        )  # fmt: skip
        for row in (artifact, made.artifact):
            Replay.objects.create(environment=environment, artifact=row, version=version, requested_by=by)
        Bisect.objects.create(
            environment=environment, artifact=made.artifact, predicate="fails", versions=[], requested_by=by
        )


def fill_operation(world: World, suffix: str = "1") -> None:
    """Fill the tables that only superusers see."""
    accounts.create_sign_in_link(user=world.viewer.user, actor=world.admin.actor)
    expires = timezone.now() + timedelta(hours=1)
    IdempotencyKey.objects.create(
        caller="user:x", key=suffix, fingerprint="f", status=201, response=b"sealed", expires_at=expires
    )
    RateCounter.objects.create(key=f"sign-in:{suffix}", minute=1, count=1)
    UnreferencedBlob.objects.create(content_hash=f"sha256:{suffix}")
