"""The person behind the jobs of replays, bisects, uploads, purges and webhook deliveries."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from apps.artifacts.models import Bisect, Replay
from apps.artifacts.services import bisects, replay_runs, replays
from apps.tenancy.actors import Actor
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import organizations, tokens
from apps.tenancy.services.webhooks.announce import enqueue_sending
from byteor_cloud.ids import uuid7
from tests.artifacts.execute_steps import capture_incident, create_environment, decide, post_replay
from tests.artifacts.incidents import incident, upload
from tests.artifacts.test_cancel import STAGES, capture
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db


def people(task: str) -> list[str]:
    """Return the id of the person behind each job of this name. The id is empty if the person is unknown."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT byteor_person FROM procrastinate_jobs WHERE task_name = %s ORDER BY id", [task])
        return [person for (person,) in cursor.fetchall()]


def test_person_behind_replay_requested_by_user_is_that_user(world: World) -> None:
    replays.request(capture(world), environment=world.dev, actor=world.operator.actor)

    assert people("artifacts.replay") == [str(world.operator.user.pk)]


def test_person_behind_replay_requested_by_key_is_key_creator_if_known(world: World) -> None:
    key, _ = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip
    artifact = capture(world)
    replays.request(artifact, environment=world.dev, actor=Actor("organization_key", str(key.pk), "ci"))
    type(key).objects.filter(pk=key.pk).update(created_by=None)
    replays.request(artifact, environment=world.dev, actor=Actor("organization_key", str(key.pk), "ci"))

    assert people("artifacts.replay") == [str(world.admin.user.pk), ""]


def test_person_behind_bisect_jobs_is_requester_of_bisect(world: World) -> None:
    artifact = capture(world)
    world.version(content=plan(stages=[{"id": "another", "op": "identity"}]))
    bisect = bisects.request(artifact, environment=world.dev, predicate="fails", actor=world.operator.actor)
    assert people("artifacts.bisect") == [str(world.operator.user.pk)]

    bisects.step(str(bisect.pk))

    assert people("artifacts.replay") == [str(world.operator.user.pk)] * 2
    for replay in Replay.objects.all():
        replay_runs.run(str(replay.pk))  # the end of each replay enqueues a step of the bisect
    assert people("artifacts.bisect") == [str(world.operator.user.pk)] * 3
    run_jobs()
    assert Bisect.objects.get().status == "succeeded"


def test_person_behind_approved_replay_is_its_requester(world: World, receiver: Any) -> None:
    artifact = capture_incident(world, receiver, create_environment(world, "staging"))
    assert post_replay(world, artifact).status_code == 202
    row = Replay.objects.get()
    assert decide(world, row).status_code in {200, 201}
    assert people("artifacts.replay") == []

    replays.follow_approval(str(row.approval_id))

    assert people("artifacts.replay") == [str(world.operator.user.pk)]


def test_person_behind_upload_is_org_admin_who_joined_first(world: World) -> None:
    world.person(Role.ORG_ADMIN, "second")
    version = world.version(content=plan(stages=STAGES))
    agent, api = world.agent()

    assert upload(api, agent, incident(version.spec_kv), kind="incident_bundle").status_code == 201

    assert people("artifacts.ingest") == [str(world.admin.user.pk)]


def test_person_behind_purge_is_user_who_deleted_environment(world: World) -> None:
    organizations.delete(world.staging, kind="environment", actor=world.admin.actor)

    assert people("tenancy.purge_environment") == [str(world.admin.user.pk)]


def test_person_behind_webhook_delivery_is_org_admin(world: World) -> None:
    enqueue_sending(uuid7(), world.organization.pk)

    assert people("tenancy.deliver_webhooks") == [str(world.admin.user.pk)]
