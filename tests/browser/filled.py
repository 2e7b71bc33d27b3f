"""An organization with a row in every table of the console, signed-in clients, and URLs of pages."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.console.frame import site
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Deployment
from apps.tenancy.models import Environment, User
from byteor_cloud import urls  # noqa: F401  registers the console's tables
from byteor_cloud.ids import uuid7
from tests.described import TABLES
from tests.recorded import recorded
from tests.resources import Place, agents, artifacts, deployments, jobs, replays
from tests.worlds import Api, World, plan

DJANGO_BACKEND = "apps.tenancy.sessions.Accounts"
MODELS = {model._meta.label_lower: model for model in site._registry}


def signed_in(user: User) -> Client:
    """Return a Django test client that is signed in as the person."""
    client = Client(headers={"accept": "text/html"}, REMOTE_ADDR="192.0.2.7")
    client.force_login(user, backend=DJANGO_BACKEND)
    return client


def superuser() -> User:
    """Create a superuser, who is an installation operator."""
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


class Filled(Place):
    """An environment with a row in every table of the console, such as an active deployment and an incident."""

    def __init__(self, world: World, suffix: str) -> None:
        super().__init__(world, world.environment("prod", f"{world.name}-{suffix}"), suffix)
        for described in TABLES.values():
            if described.row is not None:
                self.get(described.row)

    @property
    def agent(self) -> Agent:
        return self.get(agents.enrolled)[0]

    @property
    def agent_api(self) -> Api:
        return self.get(agents.enrolled)[1]

    @property
    def deployment(self) -> Deployment:
        return self.get(deployments.deployment)

    @property
    def artifact(self) -> Artifact:
        return self.get(artifacts.artifact)

    @property
    def replay(self) -> Replay:
        return self.get(replays.replay)

    @property
    def job(self) -> ProcrastinateJob:
        return self.get(jobs.job)


def titled_counts(environment: Environment) -> dict[str, int]:
    """Return the number of the environment's rows in each table that the environment page lists, by table title."""
    return {
        each.title: MODELS[each.label]._default_manager.filter(environment=environment).count()
        for each in TABLES.values()
        if each.title
    }


def fill(world: World, suffix: str = "1") -> Filled:
    """Add an environment with a row in every table of the console.

    If possible, a later call for the same starting state inserts recorded copies of the rows (``recorded``).
    """
    return recorded(("filled", world.name, suffix), lambda: Filled(world, suffix))


def second(made: Filled) -> Deployment:
    """Create an active, later deployment of the same pipeline with another config bundle."""
    world = made.world
    version = world.version(made.environment, plan(stages=[{"id": "only", "op": "identity"}]))
    return deployments.activate(made, world.bundle(made.environment, "second", version=version))


def add_siblings(world: World, made: Filled) -> None:
    """Add at least two versions, deployments, captures, replays and bisects, because row pages list these."""
    environment, by = made.deployment.environment, world.operator.actor.display
    for number in (1, 2):
        first = made.artifact.version
        assert first is not None
        version = Version.objects.get(pk=first.pk)
        version.pk, version.number = uuid7(), first.number + 10 * number
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
