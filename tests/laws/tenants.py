"""Test data for the laws over all routes: tenants with a real row behind every id of every path."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone

from apps.artifacts.services import bisects, replays, uploads
from apps.fleet.models import AgentKey, EnrollmentToken
from apps.fleet.services import enrollment, keys
from apps.releases.models import Deployment
from apps.releases.services import approvals
from apps.tenancy.credentials import Family
from apps.tenancy.models import AuditEvent, Environment, OrganizationKey, UserToken, WebhookDelivery
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members, organizations, tokens
from apps.tenancy.services.webhooks import subscriptions
from tests.worlds import Api, Person, World, plan, report, run_jobs

INCIDENT = (Path(__file__).parent.parent / "engine/replay/golden/incident.tar.gz").read_bytes()
# The plan from which the incident's spec was compiled.
RING = plan(ingress="in", egress="out", stages=[{"id": "decode", "op": "identity"}])


class FilledEnvironment:
    """A prod environment with a row of every kind, and the ids of these rows by path segment."""

    def __init__(self, world: Tenant, environment: Environment) -> None:
        self.world, self.environment = world, environment
        project = environment.project
        actor = world.operator.actor
        self.version = world.version(environment, RING)
        self.bundle = world.bundle(environment, version=self.version)
        self.agent, self.agent_api = world.agent(environment)
        self.spare_agent, self.spare_api = world.agent(environment, "spare")
        self.enrollment, enrollment_text = enrollment.create_enrollment_token(
            environment=environment, max_uses=1000, actor=actor
        )
        self.enroller = Api(enrollment_text)
        self.earlier = self.activate(self.requested())
        self.deployment = self.activate(self.requested(name="second", env={"LEVEL": "2"}))
        running = {"deployment_id": str(self.deployment.pk), "bundle_hash": self.deployment.bundle_hash,
                   "spec_hash": self.version.spec_hash}  # fmt: skip
        heartbeat = {"status": "healthy", "agent_version": "0.1.0", "active": running}
        assert self.agent_api.post(f"/api/v1/agents/{self.agent.pk}/heartbeat", heartbeat).status_code == 200
        artifact, _ = uploads.receive(
            environment=environment,
            agent=self.agent,
            kind="incident_bundle",
            captured_at=timezone.now(),
            content_hash="sha256:" + hashlib.sha256(INCIDENT).hexdigest(),
            file=ContentFile(INCIDENT),
            deployment_id=self.deployment.pk,
            actor=actor,
        )
        run_jobs()
        artifact.refresh_from_db()
        replay = replays.request(artifact, environment=environment, actor=actor)
        run_jobs()
        for name in ("a", "b"):
            ring = {**RING, "name": "history"}
            ring["single_ring"] = {**RING["single_ring"], "stages": [{"id": name, "op": "identity"}]}
            world.version(environment, ring)
        bisect = bisects.request(artifact, environment=environment, predicate="fails", pipeline="history", actor=actor)
        run_jobs()
        self.pending = self.requested(name="third", env={"LEVEL": "3"})
        approval = self.pending.approval
        assert approval is not None
        self.ids = {
            "org_id": project.organization_id,
            "project_id": project.pk,
            "env_id": environment.pk,
            "drafts": self.version.draft_id,
            "versions": self.version.pk,
            "config-bundles": self.bundle.pk,
            "enrollment-tokens": self.enrollment.pk,
            "agents": self.agent.pk,
            "deployments": self.deployment.pk,
            "approvals": approval.pk,
            "artifacts": artifact.pk,
            "replays": replay.pk,
            "lane": "in",
            "bisects": bisect.pk,
        }

    def requested(self, name: str = "first", **config: Any) -> Deployment:
        """Request a deployment as an extra operator, so that the callers under test can approve it."""
        bundle = self.bundle if name == "first" else self.world.bundle(
            self.environment, name, version=self.version, **config
        )  # fmt: skip
        self.world.operator, operator = self.world.requester, self.world.operator
        deployment = self.world.deployment(bundle)
        self.world.operator = operator
        return deployment

    def approve(self, deployment: Deployment) -> None:
        """Approve the deployment as the reviewer if needed, then run jobs until it is ``deploying``."""
        if deployment.approval is not None:
            reviewer = self.world.reviewer
            approvals.decide(deployment.approval, user=reviewer.user, decision="approve", actor=reviewer.actor)
        run_jobs()

    def activate(self, deployment: Deployment) -> Deployment:
        """Approve and offer the deployment, and report it active by both agents."""
        self.approve(deployment)
        for api, agent in ((self.agent_api, self.agent), (self.spare_api, self.spare_agent)):
            assert report(api, agent, "active").status_code == 200
        run_jobs()
        deployment.refresh_from_db()
        assert deployment.is_current
        return deployment


class Tenant(World):
    """A world that also knows the path ids of its members, keys and tokens."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.requester = self.person(Role.OPERATOR, "requester")
        self.guest = self.person(Role.VIEWER, "guest")
        self.guest_of(self.project)
        self.key, text = tokens.create_organization_key(
            organization=self.organization,
            name="ci",
            role=Role.ORG_ADMIN,
            granter=GRANTS[Role.ORG_ADMIN],
            actor=self.admin.actor,
        )
        self.key_api = Api(text)
        self.token = self.own_token(self.viewer)
        self.webhook, _ = subscriptions.create(
            organization=self.organization, url="https://hooks.example.com/", events=["approval.expire"],
            actor=self.admin.actor,
        )  # fmt: skip
        event = AuditEvent.objects.filter(organization=self.organization).latest("id")
        self.kid = self.organization.signing_keys.get(status="active").kid
        self.delivery = WebhookDelivery.objects.create(webhook=self.webhook, event=event, status="delivered")
        self.place = FilledEnvironment(self, self.prod)

    @staticmethod
    def own_token(person: Person) -> UserToken:
        """Create another token of this person."""
        token, _ = tokens.create_user_token(user=person.user, name="further", actor=person.actor)
        return token

    def guest_of(self, project: Any) -> None:
        """Make the guest a viewer of ``project`` by a project role."""
        members.add(
            organization=self.organization,
            project=project,
            email=self.guest.user.email,
            role=Role.VIEWER,
            granter=GRANTS[Role.ORG_ADMIN],
            actor=self.admin.actor,
        )

    def ids(self, place: FilledEnvironment | None = None) -> dict[str, Any]:
        """Return the id for each parameter or segment of a path."""
        place = place or self.place
        return {
            **place.ids, "user_id": self.guest.user.pk, "api-keys": self.key.pk, "tokens": self.token.pk,
            "webhooks": self.webhook.pk, "delivery_id": self.delivery.pk,
            "kid": self.kid,
        }  # fmt: skip


class Tenants:
    """Two tenants with filled environments.

    Callers belong to ``home``. ``sibling`` is another environment of the same project, ``cousin`` one of another
    project, and ``abroad`` belongs to another tenant.
    """

    def __init__(self) -> None:
        self.home = Tenant("acme")
        self.abroad = Tenant("umbrella")
        self.sibling = FilledEnvironment(self.home, self.home.environment("prod", "prod two"))
        project = organizations.create_project(
            organization=self.home.organization, name="research", actor=self.home.admin.actor
        )
        environment = organizations.create_environment(
            project=project, name="prod", posture="prod", may_loosen=True, actor=self.home.admin.actor
        )
        self.cousin = FilledEnvironment(self.home, environment)
        self._bad = {family: self._bad_credentials(family) for family in Family}
        # A future time keeps requests from recording the use of credentials, which ``writes`` would count.
        for model in (UserToken, OrganizationKey, EnrollmentToken, AgentKey):
            model.objects.update(last_used_at=timezone.now() + timedelta(days=1))

    def person(self, role: str) -> Person:
        """Return the member of the home tenant with this role."""
        found: Person = getattr(self.home, {"org_admin": "admin"}.get(role, role))
        return found

    @staticmethod
    def fill(template: str, ids: dict[str, Any]) -> str:
        """Replace each parameter of the path by an id. The id for ``{id}`` depends on the segment before it."""
        named = re.sub(r"([a-z-]+)/\{id\}", r"\1/{\1}", template)
        return re.sub(r"\{([a-z_-]+)\}", lambda match: str(ids[match[1]]), named)

    def bad_credentials(self, family: Family) -> dict[str, str]:
        """Return an invalid credential of ``family`` for each reason, such as expired or revoked."""
        return self._bad[family]

    def _bad_credentials(self, family: Family) -> dict[str, str]:
        made = {name: self._fresh(family) for name in ("expired", "revoked", "mistyped")}
        expired, revoked, mistyped = made.values()
        type(expired[0]).objects.filter(pk=expired[0].pk).update(expires_at=timezone.now() - timedelta(days=1))
        type(revoked[0]).objects.filter(pk=revoked[0].pk).update(revoked_at=timezone.now())
        text = mistyped[1]
        wrong = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
        return {
            "expired": expired[1],
            "revoked": revoked[1],
            "mistyped": wrong,
            "malformed": text[:-1],
            "another family's prefix": text.replace(f"bor_{family}_", "bor_xyz_"),
        }

    def _fresh(self, family: Family) -> tuple[Any, str]:
        home, actor = self.home, self.home.admin.actor
        match family:
            case Family.USER:
                return tokens.create_user_token(user=home.admin.user, name="bad", actor=actor)
            case Family.ORGANIZATION:
                return tokens.create_organization_key(
                    organization=home.organization, name=f"bad {OrganizationKey.objects.count()}", role=Role.ORG_ADMIN,
                    granter=GRANTS[Role.ORG_ADMIN], actor=actor,
                )  # fmt: skip
            case Family.ENROLLMENT:
                return enrollment.create_enrollment_token(environment=home.prod, actor=actor)
            case Family.AGENT:
                text = keys.create_key(home.place.agent, environment=home.prod, actor=actor)
                return AgentKey.objects.filter(agent=home.place.agent).latest("id"), text

    def caller(self, family: Family) -> Api:
        """Return the most privileged caller of ``family`` in the home tenant."""
        return {
            Family.USER: self.home.admin.api,
            Family.ORGANIZATION: self.home.key_api,
            Family.ENROLLMENT: self.home.place.enroller,
            Family.AGENT: self.home.place.agent_api,
        }[family]


UNCOUNTED = ("tenancy_ratecounter", "tenancy_denialcount")


@cache
def _counting() -> str:
    """Return a statement that lists the written rows by table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relid, relname FROM pg_stat_user_tables WHERE NOT relname = ANY(%s)", [list(UNCOUNTED)])
        tables = ",".join(f"({relid}::oid,'{name}')" for relid, name in cursor)
    return (
        "SELECT string_agg(name || ': ' || pg_stat_get_xact_tuples_inserted(id) + pg_stat_get_xact_tuples_updated(id)"
        f" + pg_stat_get_xact_tuples_deleted(id), E'\\n') FROM (VALUES {tables}) AS tables (id, name)"
    )


def writes() -> str:
    """Return how many rows were written by table in this transaction, without rate limits and denials.

    This is asked thousands of times, and PostgreSQL's own view of these numbers is ten times as slow. One text is
    sent and compared faster than a row for each table.
    """
    with connection.cursor() as cursor:
        cursor.execute(_counting())
        return str(cursor.fetchone()[0])
