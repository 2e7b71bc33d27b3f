"""Test tenants with real tokens, API clients, and functions that run the job queue in the test's thread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.db import connection
from django.db.models import Max, Q
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent, EnrollmentToken
from apps.fleet.services import enrollment
from apps.fleet.services.enrollment import Enrollment
from apps.pipelines.models import Version
from apps.pipelines.services import drafts, versions
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import bundles, deployments
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members, organizations, tokens
from byteor.engine.rollout import Strategy
from byteor.engine.target import Target
from byteor_cloud.worker import jobs
from tests import openapi
from tests.front import FrontClient

PLAN: dict[str, Any] = {
    "plan_v": 1,
    "name": "quotes",
    "target": "single_ring",
    "single_ring": {
        "ingress": "quotes_in",
        "egress": "quotes_out",
        "stages": [
            {"id": "decode", "op": "identity"},
            {"id": "check", "op": "dataguard_check", "depends_on": ["decode"]},
        ],
    },
}
ALL = {"all": True}
ALL_AT_ONCE = {"kind": "all_at_once", "failure_threshold_percent": 0, "auto_rollback": False}


def plan(name: str = "quotes", **ring: Any) -> dict[str, Any]:
    """Return ``PLAN`` with this name. ``ring`` replaces members of its ``single_ring``."""
    return {**PLAN, "name": name, "single_ring": {**PLAN["single_ring"], **ring}}


class Api:
    """A JSON client with one bearer credential or none. It checks every response against the OpenAPI document."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.client = FrontClient(raise_request_exception=True)

    def __reduce__(self) -> tuple[type[Api], tuple[str | None]]:
        return Api, (self.token,)  # the client cannot be pickled

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request and return the response. Headers are keywords: ``Idempotency_Key="k"``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            named.setdefault("Authorization", f"Bearer {self.token}")
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        content_type = named.pop("Content-Type", "application/json")
        response = self.client.generic(method, path, data, content_type, headers=named)
        openapi.check(response, method)
        return response

    def get(self, path: str, **headers: str) -> Any:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("PUT", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self("DELETE", path, **headers)


@dataclass
class Person:
    """A person in a world: the user, the actor for calls of services, and the API client."""

    user: User
    actor: Actor
    api: Api


@contextmanager
def _without_savepoints() -> Iterator[None]:
    """In a transaction, create no savepoints, to need fewer statements. An error then breaks the transaction."""
    with patch.object(connection.features, "uses_savepoints", not connection.in_atomic_block):
        yield


class World:
    """An organization with one project, environments ``dev``, ``staging`` and ``prod``, and people with each role."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._enrollments: dict[UUID, tuple[EnrollmentToken, str]] = {}  # by environment id
        self._make(name)

    @_without_savepoints()
    def _make(self, name: str) -> None:
        owner = accounts.get_or_create_account(f"admin@{name}.example")
        self.admin = self._person(owner)
        self.organization = organizations.create_organization(name=name, owner=owner, actor=self.admin.actor)
        self.project = organizations.create_project(
            organization=self.organization, name="trading", actor=self.admin.actor
        )
        self.dev, self.staging, self.prod = (self.environment(posture) for posture in ("dev", "staging", "prod"))
        self.project_admin = self.person(Role.PROJECT_ADMIN)
        self.operator = self.person(Role.OPERATOR)
        self.reviewer = self.person(Role.OPERATOR, "reviewer")
        self.viewer = self.person(Role.VIEWER)

    @staticmethod
    def _person(user: User) -> Person:
        actor = Actor("user", str(user.pk), user.email)
        _, token = tokens.create_user_token(user=user, name="test", actor=actor)
        return Person(user, actor, Api(token))

    def person(self, role: Role, name: str | None = None) -> Person:
        """Add a member to the organization and return the person."""
        invitation = members.add(
            organization=self.organization,
            project=None,
            email=f"{name or role}@{self.name}.example",
            role=role,
            granter=GRANTS[Role.ORG_ADMIN],
            actor=self.admin.actor,
        )
        return self._person(invitation.membership.user)

    def environment(self, posture: str, name: str | None = None, **settings: Any) -> Environment:
        """Add an environment to the project."""
        return organizations.create_environment(
            project=self.project,
            name=name or posture,
            posture=posture,
            settings=settings,
            may_loosen=True,
            actor=self.admin.actor,
        )

    def path(self, environment: Environment | None = None, rest: str = "") -> str:
        """Return an API path below an environment, by default ``dev``."""
        environment = environment or self.dev
        project = environment.project
        return f"/api/v1/orgs/{project.organization_id}/projects/{project.pk}/environments/{environment.pk}{rest}"

    @_without_savepoints()
    def version(self, environment: Environment | None = None, content: dict[str, Any] | None = None) -> Version:
        """Create a draft and promote it to a version."""
        environment = environment or self.dev
        content = content or PLAN
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        draft = drafts.create_draft(
            environment=environment, name=f"draft {digest}", plan=content, actor=self.operator.actor
        )
        version, _ = versions.promote(draft, actor=self.operator.actor)
        return version

    @_without_savepoints()
    def bundle(self, environment: Environment | None = None, name: str = "bundle", **config: Any) -> ConfigBundle:
        """Create a config bundle, of a new version unless ``version`` is passed."""
        environment = environment or self.dev
        version = config.pop("version", None) or self.version(environment)
        return bundles.create_config_bundle(
            environment=environment, name=name, version=version, actor=self.operator.actor, **config
        )

    def enrollment_token(self, environment: Environment | None = None, **options: Any) -> str:
        """Create an enrollment token and return its text."""
        _, text = enrollment.create_enrollment_token(
            environment=environment or self.dev, actor=self.admin.actor, **options
        )
        return text

    def enrollment(self, environment: Environment) -> tuple[EnrollmentToken, str]:
        """Return the environment's enrollment token that ``agent`` uses, and its text. Create it if missing."""
        if environment.pk not in self._enrollments:
            self._enrollments[environment.pk] = enrollment.create_enrollment_token(
                environment=environment, actor=self.admin.actor, max_uses=10_000
            )
        return self._enrollments[environment.pk]

    @_without_savepoints()
    def agent(self, environment: Environment | None = None, name: str = "agent", **labels: str) -> tuple[Agent, Api]:
        """Enroll an agent. Return it and its API client."""
        environment = environment or self.dev
        token, _ = self.enrollment(environment)
        made = enrollment.enroll(
            Enrollment(token=token, environment=environment, name=name, labels=labels, actor=self.admin.actor)
        )
        return made.agent, Api(made.secret.text)

    def deployment(self, bundle: ConfigBundle, **options: Any) -> Deployment:
        """Request a deployment. By default, it offers the bundle to all agents in a single wave."""
        return deployments.create_deployment(
            environment=bundle.environment,
            config_bundle=bundle,
            target=Target.from_stored(options.pop("target", ALL)),
            strategy=Strategy.from_stored(options.pop("strategy", ALL_AT_ONCE)),
            actor=options.pop("actor", self.operator.actor),
            **options,
        )


def run_jobs(*, limit: int = 200) -> int:
    """Run all jobs in the queue, even scheduled ones, and the jobs that they enqueue. Returns how many ran.

    The jobs run in the order of their ids. A job that is enqueued during the call for a later time is left
    for the next call. Raises AssertionError after ``limit`` jobs.
    """
    newest = ProcrastinateJob.objects.aggregate(id=Max("id"))["id"]
    for ran in range(limit):
        waiting = ProcrastinateJob.objects.filter(Q(scheduled_at=None) | Q(id__lte=newest or 0), status="todo")
        row = waiting.order_by("id").first()
        if row is None:
            return ran
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [row.pk])
        run_job(row)
    raise AssertionError(f"{limit} jobs ran: perhaps a job enqueues itself")


def run_job(row: ProcrastinateJob) -> None:
    """Run the job's function, as a worker would. The caller updates or deletes the job's row in the queue."""
    jobs.KINDS[row.task_name].run(jobs.Claim(), **row.args)


def report(api: Api, agent: Agent, status: str, **extra: Any) -> Any:
    """Send an agent's report about its current assignment."""
    from apps.fleet.models import Assignment

    assignment = Assignment.objects.get(agent=agent)
    body = {
        "deployment_id": str(assignment.deployment_id),
        "bundle_hash": assignment.bundle_hash,
        "status": status,
        **extra,
    }
    return api.post(f"/api/v1/agents/{agent.pk}/deployment", body)
