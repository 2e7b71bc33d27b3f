"""The organizations and people of the console's access tests, and the expected permissions of each person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from django.contrib.admin.utils import unquote
from django.template.backends.django import Template
from django.test import Client, client
from django.urls import ResolverMatch, resolve

from apps.artifacts.models import Artifact
from apps.artifacts.services import replays
from apps.console.frame import site
from apps.console.frame.console_user import ConsoleUser
from apps.fleet.services import facts
from apps.notifications.models import ChatWebhook
from apps.tenancy.models import AuditEvent, Environment, Membership, Organization, Project, User
from apps.tenancy.permissions import GRANTS, Permission, Role
from apps.tenancy.services import members, organizations
from tests.artifacts.incidents import frames, incident, ingested, journal
from tests.browser.filled import MODELS, fill, row_page, signed_in, superuser
from tests.described import ACTS, PAGES, SEES, TABLES
from tests.permissions import MATRIX
from tests.resources.environments import hold_offer
from tests.worlds import World, plan, run_jobs

P = Permission
# Pages of the admin site itself. None needs a permission of its own; each shows only what the person may see.
SITE_PAGES = {
    "index", "login", "logout", "password_change", "password_change_done", "autocomplete", "jsi18n", "search",
    "app_list", "records", "start", "notifications", "notifications_read", "notification_open", "notification_counts",
    "notification_settings", "device", "home_live", "setup", "setup_step", "setup_hide",
    "agent_completions", "agent_searches", "agent_search_delete",
}  # fmt: skip

CARD = "4929123456781234"  # occurs only in captured records, which viewers must not read
_RECORDS = [b'{"id": %d, "card": "%s"}' % (number, CARD.encode()) for number in (1, 2, 3)]


type Place = (
    tuple[Any, Any] | None
)  # an organization's id, and a project's id or None; None if no organization owns the row


def subjects_of(job: Any) -> list[tuple[str, Any]]:
    """Return a table and the id of a row for each of the job's arguments with a name that ends in ``_id``."""
    tables = {label.partition(".")[2]: label for label in MODELS}
    return [(tables[name.removesuffix("_id")], pk) for name, pk in job.args.items() if name.endswith("_id")]


def place_of(row: Any) -> Place:
    """Return the ids of the organization and project that own the row, or None. Raises AssertionError if unknown."""
    if row is None:
        return None
    if "_place" not in row.__dict__:
        row._place = _place_of(row)
    return row._place  # type: ignore[no-any-return]  # no class declares ``_place``


def environment_of(row: Any) -> Environment:
    """Return the environment of the row, or the row itself if it is an environment."""
    environment: Environment = row if isinstance(row, Environment) else row.environment
    return environment


def _place_of(row: Any) -> Place:
    match row:
        case Organization():
            return row.pk, None
        case Project():
            return row.organization_id, row.pk
        case Membership() | ChatWebhook():
            return place_of(row.project or row.organization)
        case AuditEvent():
            return None if row.organization_id is None else (row.organization_id, row.project_id)
    if SEES[row._meta.label_lower] in (None, "own", "people"):
        return None
    if row._meta.model_name == "procrastinatejob":
        return next((place_of(find(*about)) for about in subjects_of(row)), None)
    for name in ("organization", "project", "environment", "agent", "deployment", "approval", "webhook"):
        if name in {each.name for each in row._meta.fields}:
            return place_of(getattr(row, name))
    raise AssertionError(f"nothing says where a row of {row._meta.label} belongs")


def project_member(world: World, project: Any, role: Role) -> User:
    """Create a person whose only role is in this project."""
    return members.add(
        organization=world.organization, project=project, email=f"{role}-of-{project.name}@{world.name}.example",
        role=role, granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    ).membership.user  # fmt: skip


@contextmanager
def unrendered() -> Iterator[None]:
    """Let the console respond without rendering templates, for tests that do not check the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Template, "render", lambda *_: "")
        yield


def unrendered_list(asking: Client, url: str, query: Mapping[str, str] | None = None) -> Any:
    """Return the change list of the page without rendering the page."""
    with unrendered():
        response: Any = asking.get(url, query)
    return response.context_data["cl"]


@dataclass
class Somebody:
    """A person with their roles in each organization and project, and a signed-in client."""

    name: str
    user: User
    in_organizations: dict[Any, Role] = field(default_factory=dict)
    in_projects: dict[Any, Role] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = signed_in(self.user)
        for each in Membership.objects.filter(user=self.user):
            where = self.in_organizations if each.project_id is None else self.in_projects
            where[each.project_id or each.organization_id] = Role(each.role)
        mine = Membership.objects.filter(user=self.user)
        self.organizations = set(mine.values_list("organization_id", flat=True))
        self._seen: dict[Any, bool] = {}
        self._opens: dict[str, bool] = {}

    def has_permission(self, permission: Permission, place: Place) -> bool:
        """Return whether the person has the permission here: as a superuser, by role, or VIEW_ORG as a member."""
        if self.user.is_superuser:
            return True
        if place is None:
            return False
        organization, project = place
        role = self.in_organizations.get(organization)
        if role is not Role.ORG_ADMIN and project is not None:
            role = self.in_projects.get(project, role)
        joined = permission is P.VIEW_ORG and organization in self.organizations
        return joined or (role is not None and permission in MATRIX[role])

    def has_permission_anywhere(self, permission: Permission) -> bool:
        """Return whether the person has the permission in at least one organization or project."""
        roles = [*self.in_organizations.values(), *self.in_projects.values()]
        return self.user.is_superuser or any(permission in MATRIX[role] for role in roles)

    def sees_table(self, label: str) -> bool:
        """Return whether the person may open the table."""
        needs = SEES[label]
        if self.user.is_superuser or (isinstance(needs, str) and not isinstance(needs, Permission)):
            return True
        return needs is not None and self.has_permission_anywhere(Permission(needs))

    def sees(self, row: Any) -> bool:
        """Return whether the person may see the row."""
        key = (row._meta.label_lower, row.pk)
        if key not in self._seen:
            self._seen[key] = self.user.is_superuser or self._sees(row)
        return self._seen[key]

    def _sees(self, row: Any) -> bool:
        match SEES[row._meta.label_lower]:
            case Permission() as needs:
                place = place_of(row)
                further = TABLES[row._meta.label_lower].in_organization
                if place is not None and place[1] is None and further is not None:
                    return self.has_permission(further, place)
                return self.has_permission(needs, place)
            case "members":
                if row.project_id is None:
                    return row.organization_id in self.in_organizations
                return self.has_permission(P.VIEW_PROJECT, place_of(row.project))
            case "people":
                return any(self.sees(each) for each in Membership.objects.filter(user=row))
            case "own":
                return bool(row.user_id == self.user.pk)
        return False

    def is_near(self, row: Any) -> bool:
        """Return whether the row belongs to an organization, project or person that this person may see.

        Pages may name such rows. For example, a row may name its creator, who is another member of the organization.
        """
        match SEES[row._meta.label_lower]:
            case "own":
                return self.sees(row.user)
            case "people":
                return any(self.is_near(each) for each in Membership.objects.filter(user=row))
        place = place_of(row)
        return place is not None and self.has_permission(P.VIEW_ORG if place[1] is None else P.VIEW_PROJECT, place)

    def may_act_somewhere(self, label: str, name: str) -> bool:
        """Return whether the person has the act's permission in at least one place, or the act needs no permission."""
        needs = ACTS[label, name].needs
        return needs is None or self.has_permission_anywhere(needs)

    def may_act(self, row: Any, name: str) -> bool:
        """Return whether the person may perform the act on this row."""
        rule = ACTS[row._meta.label_lower, name]
        place = place_of(row)
        needed = {rule.needs}
        if rule.on_prod is not None and environment_of(row).posture == "prod":
            needed.add(rule.on_prod)
        if place is not None and place[1] is None:
            needed.add(rule.in_organization)
        is_mine = not rule.only_self or row.pk == self.user.pk
        is_mine = is_mine and (not rule.only_requester or row.requester_id == self.user.pk)
        if rule.only_operators and not self.user.is_superuser:
            return False
        permissions = [each for each in needed if each is not None]
        return self.sees(row) and is_mine and all(self.has_permission(each, place) for each in permissions)

    def may_open(self, url: str) -> bool:
        """Return whether the person may open a URL of the console or send its form."""
        path = urlsplit(url).path
        if path not in self._opens:
            self._opens[path] = self._may_open(resolve(path))
        return self._opens[path]

    def _may_open(self, match: ResolverMatch) -> bool:
        name, given = match.url_name or "", match.kwargs
        if name in SITE_PAGES:
            return True
        if name in PAGES:
            page = PAGES[name]
            assert page.needs is not None
            if not page.table:
                return self.has_permission_anywhere(page.needs)
            row = find(page.table, next(iter(given.values())))
            return row is not None and self.sees(row) and self.has_permission(page.needs, place_of(row))
        return self._may_open_standard(match)

    def _may_open_standard(self, match: ResolverMatch) -> bool:
        app, model, kind = (match.url_name or "__").split("_")
        label = f"{app}.{model}"
        if kind == "changelist":
            return self.sees_table(label)
        if kind == "choice":
            return self.may_act_somewhere(label, match.kwargs["act"])
        row = find(label, unquote(str(match.kwargs.get("object_id", match.kwargs.get("pk")))))
        if row is None:
            return False
        if kind == "act":
            return self.may_act(row, match.kwargs["act"])
        return kind in {"change", "history", "live"} and self.sees(row)


_found: dict[tuple[str, str], Any] = {}


def find(label: str, pk: Any) -> Any:
    """Return the row of the table with this primary key, or None. Rows are cached."""
    key = (label, str(pk))
    if key not in _found:
        _found[key] = MODELS[label]._default_manager.filter(pk=pk).first()
    return _found[key]


class Tenants:
    """Two organizations with a row in every table, and people with each role.

    ``acme`` has two projects. Its project admin is only a viewer in the second project, and ``guest`` has a role only
    in the first. For each act there is at least one row whose state permits it.
    """

    def __init__(self) -> None:
        self.acme, self.umbrella = World("acme"), World("umbrella")
        made = fill(self.acme)
        fill(self.umbrella)
        self.trading = self.acme.project
        self.research = organizations.create_project(
            organization=self.acme.organization, name="research", actor=self.acme.admin.actor
        )
        self.acme.project = self.research
        fill(self.acme, "research")
        self.acme.project = self.trading
        guest = project_member(self.acme, self.trading, Role.OPERATOR)
        members.add(
            organization=self.acme.organization, project=self.research, email=self.acme.project_admin.user.email,
            role=Role.VIEWER, granter=GRANTS[Role.ORG_ADMIN], actor=self.acme.admin.actor,
        )  # fmt: skip
        self._make_every_act_possible(made)
        home, abroad = self.acme, self.umbrella
        self.home = [
            Somebody("viewer", home.viewer.user),
            Somebody("guest", guest),
            Somebody("operator", home.operator.user),
            Somebody("project_admin", home.project_admin.user),
            Somebody("org_admin", home.admin.user),
        ]
        self.abroad = [
            Somebody("viewer abroad", abroad.viewer.user),
            Somebody("operator abroad", abroad.operator.user),
            Somebody("project_admin abroad", abroad.project_admin.user),
            Somebody("org_admin abroad", abroad.admin.user),
        ]
        self.root = Somebody("installation operator", superuser())
        everything = ConsoleUser(None, True, {})
        self.rows: dict[str, list[Any]] = {
            label: list(
                admin.narrow(model._default_manager.order_by("pk"), everything).select_related(
                    *admin.related or (None,)
                )
            )
            for label, model in MODELS.items()
            for admin in [site.get_model_admin(model)]
        }
        self._pages: dict[Any, Any] = {}
        self.by_id: dict[str, list[Any]] = {}
        _found.clear()
        for label, rows in self.rows.items():
            for row in rows:
                self.by_id.setdefault(str(row.pk), []).append(row)
                _found[label, str(row.pk)] = row

    def _make_every_act_possible(self, made: Any) -> None:
        acme = self.acme
        actor = acme.admin.actor
        # Create two versions, and an incident that has diverged replays and a queued replay.
        first, _ = (acme.version(content=plan(stages=[{"id": name, "op": "identity"}])) for name in ("a", "b"))
        expected = frames((1, _RECORDS[0]), (2, b"%s?" % _RECORDS[1]))
        self.artifact: Artifact = ingested(
            acme, incident(first.spec_kv, expected=expected, quotes_in=journal(_RECORDS))
        )
        for _ in range(2):
            replays.request(self.artifact, environment=acme.dev, actor=actor)
        run_jobs()
        replays.request(self.artifact, environment=acme.dev, actor=actor)
        for each in ACTS.values():
            if each.on is not None:
                made.get(each.on)
        for environment in (acme.dev, acme.prod):  # creating the rows above may have replaced held offers
            hold_offer(acme.agent(environment, "held")[0])
        facts.catch_up(Environment.objects.all())  # otherwise the first request for the agents list would do this

    @property
    def everybody(self) -> list[Somebody]:
        return [*self.home, *self.abroad, self.root]

    @cache  # noqa: B019  each process has only one instance
    def rows_for(self, label: str, name: str) -> list[Any]:
        """Return rows of acme's trading project, of acme itself or of its viewer, whose state permits the act.

        Returns at most one row. If the act requires other permissions in prod or on rows of an organization itself,
        returns at most one row of each kind.
        """
        admin, rule = site.get_model_admin(MODELS[label]), ACTS[label, name]
        applies = next(each for each in admin.acts if each.name == name).applies
        own = {"people": "pk", "own": "user_id"}.get(str(SEES[label]))
        rows = self.rows_in(label, self.trading)
        if own is not None:
            rows = [row for row in self.rows[label] if getattr(row, own) == self.acme.viewer.user.pk]
        if rule.only_requester:
            rows = [row for row in rows if row.requester_id == self.acme.operator.user.pk]
        found: dict[Any, Any] = {}
        for row in rows:
            is_prod = rule.on_prod is not None and environment_of(row).posture == "prod"
            is_organizations = rule.in_organization is not None and row.project_id is None
            if (is_prod, is_organizations) not in found and applies(row):
                found[is_prod, is_organizations] = row
        return list(found.values())

    def acted_on(self, label: str) -> list[Any]:
        """Return all rows that ``rows_for`` returns for the acts of the table, without duplicates."""
        found = {row.pk: row for at, name in ACTS if at == label for row in self.rows_for(label, name)}
        return list(found.values())

    def near(self, label: str) -> Any:
        """Return the first row of ``acted_on``.

        If there is none, return a row that belongs to acme's trading project or directly to acme, otherwise any row.
        """
        return next(iter([*self.acted_on(label), *self.rows_in(label, self.trading), *self.rows[label]]))

    def far(self, label: str) -> Any:
        """Return a row of the table in acme's research project, or None."""
        place = (self.research.organization_id, self.research.pk)
        return next((row for row in self.rows[label] if place_of(row) == place), None)

    @staticmethod
    def send(
        person: Somebody, url: str, method: str = "GET", data: Mapping[str, str] | None = None, *, whole: bool = False
    ) -> Any:
        """Send a request as the person. Renders the template only if ``whole`` is set."""
        with pytest.MonkeyPatch.context() as patch:
            # To save time, do not let the test client copy the context of each template.
            patch.setattr(client, "store_rendered_templates", lambda *_, **__: None)
            form = urlencode(data or {})
            with nullcontext() if whole else unrendered():
                return person.client.generic(method, url, form, "application/x-www-form-urlencoded")

    def page(self, person: Somebody, row: Any) -> Any:
        """Return the page of the row as the person sees it. Pages are cached."""
        key = (person.name, row._meta.label_lower, row.pk)
        if key not in self._pages:
            self._pages[key] = self.send(person, row_page(row), whole=True)
            assert self._pages[key].status_code == 200, key
        return self._pages[key]

    @cache  # noqa: B019
    def rows_in(self, label: str, project: Project) -> list[Any]:
        """Return the rows of the table that belong to the project or directly to its organization."""
        places = {(project.organization_id, project.pk), (project.organization_id, None)}
        return [row for row in self.rows[label] if place_of(row) in places]
