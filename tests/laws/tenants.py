"""Test data for the laws over all routes: tenants with an existing row for every id of every path."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import cache
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.fleet.models import Agent, AgentKey, EnrollmentToken
from apps.fleet.services import enrollment, keys
from apps.releases.models import Deployment
from apps.tenancy.credentials import Family
from apps.tenancy.models import Environment, OrganizationKey, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import organizations, tokens
from tests.described import RESOURCES, make_ids
from tests.resources import Place, agents, deployments, organization_keys
from tests.worlds import Api, Person, World, run_jobs


class FilledEnvironment(Place):
    """A prod environment with the rows that calls need. ``ids`` contains their ids by path parameter or segment."""

    def __init__(self, world: Tenant, environment: Environment) -> None:
        super().__init__(world, environment, str(environment.pk))
        self.ids = make_ids(self, of_environment=True)
        for resource in RESOURCES:
            for make in resource.more:
                self.get(make)
        _, self.spare_api = world.agent(environment, "spare")
        run_jobs()

    @property
    def agent(self) -> Agent:
        return self.get(agents.enrolled)[0]

    @property
    def agent_api(self) -> Api:
        return self.get(agents.enrolled)[1]

    @property
    def enroller(self) -> Api:
        """A client with the enrollment token of the environment."""
        return Api(self.world.enrollment(self.environment)[1])

    @property
    def deployment(self) -> Deployment:
        return self.get(deployments.deployment)


class Tenant(World):
    """A world with a filled environment."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.place = FilledEnvironment(self, self.prod)
        self._own_ids = make_ids(self.place, of_environment=False)

    @property
    def key_api(self) -> Api:
        """A client with the organization's key."""
        return self.place.get(organization_keys.created)[1]

    def ids(self, place: FilledEnvironment | None = None) -> dict[str, Any]:
        """Return the ids by path parameter or segment."""
        return {**self._own_ids, **(place or self.place).ids}


class Tenants:
    """Two tenants with filled environments.

    ``home`` is the tenant of most callers, and ``abroad`` the other tenant. ``sibling`` is another environment of the
    project of ``home``, and ``cousin`` an environment of another project of the same organization.
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
        """Replace each parameter of the path with an id. The id for ``{id}`` depends on the segment before it."""
        named = re.sub(r"([a-z-]+)/\{id\}", r"\1/{\1}", template)
        return re.sub(r"\{([a-z_-]+)\}", lambda match: str(ids[match[1]]), named)

    def bad_credentials(self, family: Family) -> dict[str, str]:
        """Return invalid credentials of ``family`` by the reason why they are invalid, such as expired or revoked."""
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


UNCOUNTED = ("tenancy_ratecounter", "tenancy_denialcount", "fleet_refusedagent")


@cache
def _counting() -> str:
    """Return a statement that selects the number of written rows by table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relid, relname FROM pg_stat_user_tables WHERE NOT relname = ANY(%s)", [list(UNCOUNTED)])
        tables = ",".join(f"({relid}::oid,'{name}')" for relid, name in cursor)
    return (
        "SELECT string_agg(name || ': ' || pg_stat_get_xact_tuples_inserted(id) + pg_stat_get_xact_tuples_updated(id)"
        f" + pg_stat_get_xact_tuples_deleted(id), E'\\n') FROM (VALUES {tables}) AS tables (id, name)"
    )


def writes() -> str:
    """Return the numbers of rows written in this transaction by table, as one string.

    Tables that count requests and refusals are left out.

    This runs thousands of times, and PostgreSQL's own view of these numbers is ten times as slow. Sending and comparing
    one string is faster than sending and comparing a row for each table.
    """
    with connection.cursor() as cursor:
        cursor.execute(_counting())
        return str(cursor.fetchone()[0])
