"""The query behind the overview: the rows behind "Needs you", the counts of the tiles, and the setup steps.

The counts of agents come from ``fleet.services.facts`` instead. The query is compiled once for all people whose roles
have the same form (see ``frame/personal.py``). It has a part for each kind of need, with at most ``MOST_OF_KIND`` + 1
rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.contrib.postgres.aggregates import ArrayAgg
from django.db.models import (
    Case,
    Count,
    DateTimeField,
    Exists,
    F,
    JSONField,
    Max,
    Model,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce, JSONObject
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Replay
from apps.artifacts.services.current_tests import failing_tests
from apps.console.frame import site
from apps.console.frame.bell import awaiting_decision_by
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.large import MOST_COUNTED
from apps.console.frame.personal import CountRows, personal_query
from apps.console.frame.scope import granted_condition, lineage, live_tenant_condition, reaching, scope_condition
from apps.console.pages.chat_webhooks import managed_rows
from apps.console.pages.jobs import jobs_about
from apps.fleet.models import Agent, EnrollmentToken
from apps.notifications.models import ChatWebhook
from apps.notifications.services.sweeps.credentials import find_expiring
from apps.notifications.services.sweeps.organization import FAILING_FOR
from apps.pipelines.models import Draft, Version
from apps.releases.models import Approval, ConfigBundle, Deployment, TimelineEntry
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import (
    Environment,
    Membership,
    MessageEvent,
    Organization,
    OrganizationKey,
    OrganizationQuotas,
    Project,
    Quota,
    Tenant,
    User,
    UserToken,
    Webhook,
)
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.usage import used_of_organization
from byteor.engine.machines import IN_FLIGHT, UNDER_WAY, ApprovalStatus, DeploymentStatus, ReplayStatus
from byteor.engine.rollout import Hold
from byteor_cloud.ids import smallest_uuid7

MOST_OF_KIND: Final = 30
_MOST_UNDER_WAY: Final = 1_000  # environments with rollouts under way
_ROLLOUTS_FOR: Final = timedelta(days=7)
_INCIDENTS_FOR: Final = timedelta(hours=24)
# Failed deployments with these reasons are left out, because the reasons usually are decisions of somebody.
_DECIDED: Final = ("aborted", "approval_denied", "approval_revoked", "wave_denied")
# The tables of the steps to the first deployment, each with the number of rows that the step needs.
_STEPS: Final[tuple[tuple[type[Model], int], ...]] = (
    (Organization, 1), (Project, 1), (Environment, 1), (Membership, 2), (Agent, 1), (Draft, 1), (Version, 1),
    (ConfigBundle, 1), (Deployment, 1),
)  # fmt: skip
APPROVED: Final = "approved"  # the last step: a deployment exists that does not wait for approval
_LEVELS: Final[Mapping[str, type[Organization | Project | Environment]]] = {
    "organization": Organization,
    "project": Project,
    "environment": Environment,
}


class Kind(StrEnum):
    """The kinds of rows of the query. Each is a kind of need, except ``UNDER_WAY`` and ``NUMBERS``."""

    APPROVAL = "approval"
    BREAK_GLASS = "break_glass"
    HELD_WAVE = "held_wave"
    FAILED = "failed"
    PAUSED = "paused"
    INCIDENT = "incident"
    FIXTURES = "fixtures"
    WEBHOOK = "webhook"
    CHAT_WEBHOOK = "chat_webhook"
    JOB = "job"
    USER_TOKEN = "user_token"  # noqa: S105  not a secret
    ORGANIZATION_KEY = "organization_key"
    ENROLLMENT_TOKEN = "enrollment_token"  # noqa: S105  not a secret
    QUOTA = "quota"
    UNDER_WAY = "under_way"
    NUMBERS = "numbers"


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the query: a time, usually when the need began, and values for its sentence."""

    kind: Kind
    at: datetime | None
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Home:
    """The result of the query: the rows by kind, the steps to the first deployment, and the numbers of the tiles.

    ``steps`` says by name whether each step except ``APPROVED`` is done. It is None if there is a deployment that does
    not wait for approval.
    """

    rows: Mapping[Kind, Sequence[Found]]
    steps: Mapping[str, bool] | None
    numbers: Mapping[str, int]


def read_home(console_user: ConsoleUser, scope: Tenant) -> Home:
    """Return what may need the person in the scope, and the numbers."""
    path = lineage(scope)
    level = type(path[-1]).__name__.lower() if path else ""
    since = [smallest_uuid7(console_user.now - span) for span in (_ROLLOUTS_FOR, _INCIDENTS_FOR)]
    query, values = personal_query(_build, level, console_user, *since, *(each.pk for each in path))
    rows: dict[Kind, list[Found]] = {kind: [] for kind in Kind}
    for kind, at, values_of in query.tuples(*values):
        rows[Kind(kind)].append(Found(Kind(kind), at, json.loads(values_of)))
    (row,) = rows.pop(Kind.NUMBERS)
    numbers = dict(row.about)
    return Home(rows, numbers.pop("steps"), numbers)


def read_steps(console_user: ConsoleUser, scope: Tenant) -> Mapping[str, bool] | None:
    """Return only the ``steps`` of ``read_home``."""
    path = lineage(scope)
    level = type(path[-1]).__name__.lower() if path else ""
    query, values = personal_query(_build_steps, level, console_user, *(each.pk for each in path))
    ((steps,),) = query.tuples(*values)
    return None if steps is None else json.loads(steps)


def _build_steps(level: str, console_user: ConsoleUser, *path: UUID) -> QuerySet[Any, Any]:
    reader = _Reader(console_user, _scope(level, path))
    return User.objects.filter(pk=str(console_user.user_id)).values_list(_steps(reader))


@dataclass(frozen=True, slots=True)
class _Reader:
    """The person and the scope for which the query is built."""

    console_user: ConsoleUser
    scope: Tenant

    def may(self, model: type[Model], permission: P, tenant: str = "environment") -> Q:
        """Return the condition that a row is in the scope, and that the person has the permission on it.

        Rows of deleted projects and environments do not meet the condition.
        """
        return (
            live_tenant_condition(model, tenant)
            & granted_condition(model, tenant, permission, self.console_user)
            & scope_condition(model, tenant, self.scope)
        )

    def listed(self, model: type[Model]) -> QuerySet[Any]:
        """Return the rows of the table that the person sees in the scope."""
        admin: Any = site.get_model_admin(model)
        rows = admin.narrow(model._default_manager.order_by(), self.console_user)
        return rows if self.scope is None else admin.in_scope(rows, self.scope)  # type: ignore[no-any-return]

    def before(self, span: timedelta) -> Combinable:
        """Return the time ``span`` before the request. The database subtracts, because the query is compiled once."""
        return Value(self.console_user.now, DateTimeField()) - Value(span)


def _build(level: str, console_user: ConsoleUser, week: UUID, day: UUID, *path: UUID) -> QuerySet[Any, Any]:
    """Return the query. ``path`` has the ids of the scope's levels, and ``level`` is the name of the last one.

    ``week`` is the smallest id of the failed deployments that are read, and ``day`` that of the incidents.
    """
    reader = _Reader(console_user, _scope(level, path))
    numbers = User.objects.filter(pk=str(console_user.user_id))
    parts = [
        _part(numbers, Kind.NUMBERS, None, JSONObject(**_numbers(reader))),
        *_approvals(reader),
        *_rollouts(reader, week),
        _incidents(reader, day),
        _fixtures(reader),
        *_webhooks(reader),
        _jobs(reader),
        *_credentials(reader),
        _quotas(reader),
    ]
    first, *rest = parts
    return first.union(*rest, all=True)


def _scope(level: str, path: Sequence[UUID]) -> Tenant:
    """Return the scope with only the ids of its levels; None without levels."""
    scope: Any = None
    for (name, model), pk in zip(_LEVELS.items(), path, strict=False):
        above = {} if scope is None else {type(scope).__name__.lower(): scope}
        scope = model(pk=pk, **above)
        if name == level:
            break
    return scope  # type: ignore[no-any-return]


def _part(
    rows: QuerySet[Any, Any], kind: Kind, at: Any, about: Combinable, most: int = MOST_OF_KIND + 1
) -> QuerySet[Any, Any]:
    """Return a part of the query, with the columns that all parts have and at most ``most`` rows."""
    columns = {
        "need_kind": Value(kind.value, TextField()),
        "need_at": Cast(Value(None) if at is None else at, DateTimeField()),
        "need_about": about,
    }
    part: QuerySet[Any, Any] = rows.annotate(**columns).values_list(*columns)[:most]
    return part


def _place(path: str = "environment") -> dict[str, Any]:
    """Return the values that name the environment at the field path."""
    return {
        "environment": F(f"{path}_id"),
        "place": F(f"{path}__name"),
        "project": F(f"{path}__project__name"),
    }


# -- numbers ------------------------------------------------------------------------------------------------------


def _numbers(reader: _Reader) -> dict[str, Any]:
    """Return the counts of the tiles except agents, each at most ``MOST_COUNTED`` + 1, and which steps are done."""
    counted = {
        "approvals": reader.listed(Approval).filter(status=ApprovalStatus.PENDING),
        "in_flight": reader.listed(Deployment).filter(status__in=IN_FLIGHT),
        "diverged": reader.listed(Replay).filter(status=ReplayStatus.DIVERGED),
        "dead_letters": reader.listed(ProcrastinateJob).filter(status="failed"),
    }
    numbers: dict[str, Any] = {
        name: CountRows(rows.order_by().values("pk")[: MOST_COUNTED + 1]) for name, rows in counted.items()
    }
    return numbers | {"steps": _steps(reader)}


def _steps(reader: _Reader) -> Case:
    """Return an expression for the names of the steps to the first deployment and whether each is done.

    The result is null if there is a deployment that does not wait for approval. The database then skips the search for
    rows of the other steps, which would take long in a scope with many empty tenants.
    """
    steps: dict[str, Any] = {
        str(model._meta.model_name): Exists(reader.listed(model).order_by()[needed - 1 : needed])
        for model, needed in _STEPS
    }
    approved = reader.listed(Deployment).exclude(status=DeploymentStatus.PENDING_APPROVAL)
    return Case(When(~Exists(approved.order_by()), then=JSONObject(**steps)), output_field=JSONField())


# -- releases -----------------------------------------------------------------------------------------------------


def _approvals(reader: _Reader) -> Iterator[QuerySet[Any, Any]]:
    """Yield the approvals that the person can decide on, and those of break-glass deployments.

    The latter are all pending approvals of such deployments in environments that the person may operate, except
    expired ones.
    """
    console_user = reader.console_user
    scope = live_tenant_condition(Approval, "environment") & scope_condition(Approval, "environment", reader.scope)
    values = JSONObject(
        id="pk", expires_at="expires_at", requested_by="requested_by", break_glass="break_glass", wave="wave",
        replay="replay_id", pipeline="deployment__pipeline",
        version="deployment__config_bundle__version__number", rollout="rollout__pipeline",
        bundle="rollout__config_bundle__name", freeze="deployment__freeze_override",
        gate="deployment__replay_gate_override", **_place(),
    )  # fmt: skip
    mine = Approval.objects.filter(scope, awaiting_decision_by(console_user))
    yield _part(mine.order_by("expires_at", "pk"), Kind.APPROVAL, F("created_at"), values)
    others = Approval.objects.filter(
        reader.may(Approval, P.OPERATE_ENVIRONMENT), status=ApprovalStatus.PENDING, break_glass=True,
        expires_at__gt=console_user.now,
    )  # fmt: skip
    yield _part(others.order_by("expires_at", "pk"), Kind.BREAK_GLASS, F("created_at"), values)


def _rollouts(reader: _Reader, week: UUID) -> Iterator[QuerySet[Any, Any]]:
    """Yield deployments with a wave that somebody must start, paused and failed ones, and environments with rollouts.

    A failed deployment is included if it was requested after ``week``, is the newest of its pipeline, and its
    reason is not in ``_DECIDED``. The environments are those with deployments under way.
    """
    mine = Deployment.objects.filter(reader.may(Deployment, P.OPERATE_ENVIRONMENT))
    values = {
        "id": F("pk"), "pipeline": F("pipeline"), "version": F("config_bundle__version__number"),
        "status": F("status"), "detail": F("detail"), "reason": F("rollback_reason"), "wave": F("wave"),
        "held": KT("wave_hold__wave"), **_place(),
    }  # fmt: skip
    deploying = mine.filter(status=DeploymentStatus.DEPLOYING)
    # Compare as text, because a compiled query accepts no JSON constants.
    held = deploying.alias(hold=KT("wave_hold__kind"), is_over=KT("wave_hold__is_over")).filter(
        hold=Hold.MANUAL.value, is_over="false", paused_at=None, wave_done_at__isnull=False
    )
    yield _part(held.order_by("wave_done_at", "pk"), Kind.HELD_WAVE, F("wave_done_at"), JSONObject(**values))
    paused = deploying.filter(paused_at__isnull=False).order_by("-paused_at", "pk")
    yield _part(paused, Kind.PAUSED, F("paused_at"), JSONObject(**values))
    newer = Deployment.objects.filter(
        environment=OuterRef("environment"), pipeline=OuterRef("pipeline"), pk__gt=OuterRef("pk")
    )
    has_failed = Q(status=DeploymentStatus.FAILED) | Q(status=DeploymentStatus.ROLLED_BACK) & ~Q(reason="")
    failed = mine.filter(has_failed, ~Exists(newer), pk__gte=week).exclude(reason__in=_DECIDED).order_by("-pk")
    last = TimelineEntry.objects.filter(deployment=OuterRef("pk")).order_by("-pk").values("created_at")[:1]
    yield _part(failed, Kind.FAILED, Coalesce(Subquery(last), "created_at"), JSONObject(**values))
    under_way = mine.filter(status__in=UNDER_WAY).order_by().values("environment").distinct()
    places = Environment.objects.filter(pk__in=under_way)
    yield _part(places, Kind.UNDER_WAY, None, JSONObject(environment="pk"), _MOST_UNDER_WAY)


def _incidents(reader: _Reader, day: UUID) -> QuerySet[Any, Any]:
    """Return the incidents of the last day: captures that were not requested.

    They are grouped by environment, pipeline, stage and kind.
    """
    events = MessageEvent.objects.filter(
        reader.may(MessageEvent, P.OPERATE_ENVIRONMENT),
        ~Q(data__has_key="since"),  # leaves out summaries, which repeat other events
        type__in=[MessageType.INCIDENT_NEW, MessageType.INCIDENT_REOPENED],
        pk__gte=day,
    )
    groups = events.order_by().values("environment_id", "environment__name", "environment__project__name", "subject")
    newest = ArrayAgg("resource_id", order_by="-pk")
    grouped = groups.annotate(need_last=Max("created_at"), need_number=Count("*"), need_newest=newest)
    values = JSONObject(
        subject="subject", number="need_number", artifact="need_newest__0", **_place(),
    )  # fmt: skip
    return _part(grouped.order_by("-need_last"), Kind.INCIDENT, F("need_last"), values)


def _fixtures(reader: _Reader) -> QuerySet[Any, Any]:
    current = Deployment.objects.filter(reader.may(Deployment, P.OPERATE_ENVIRONMENT))
    failing = failing_tests(current, reader.console_user.now).order_by("-pk")
    values = JSONObject(id="pk", pipeline="pipeline", failing="failing", **_place())
    return _part(failing, Kind.FIXTURES, F("finished_at"), values)


# -- the organization ---------------------------------------------------------------------------------------------


def _webhooks(reader: _Reader) -> Iterator[QuerySet[Any, Any]]:
    """Yield the webhooks and chat webhooks that the person manages, and that have been failing for an hour or more.

    Also yields those that the service has disabled.
    """
    organizations = reader.console_user.organization_condition(P.MANAGE_ORG_MEMBERSHIPS, "organization")
    hooks = Webhook.objects.filter(organizations)
    yield _part(_failing(reader, hooks), Kind.WEBHOOK, F("failing_since"), _of_webhook("description", "url"))
    chat = managed_rows(ChatWebhook.objects.all(), reader.console_user)
    yield _part(_failing(reader, chat), Kind.CHAT_WEBHOOK, F("failing_since"), _of_webhook("name", "host"))


def _failing(reader: _Reader, hooks: QuerySet[Any]) -> QuerySet[Any]:
    failing = Q(enabled=True, failing_since__lte=reader.before(FAILING_FOR)) | Q(enabled=False) & ~Q(disabled_reason="")
    live = hooks.filter(
        failing,
        Q(project=None) | Q(project__deleted_at=None),
        Q(environment=None) | Q(environment__deleted_at=None, environment__project__deleted_at=None),
    )
    return reaching(live, reader.scope).order_by("failing_since", "pk")


def _of_webhook(name: str, url: str) -> JSONObject:
    return JSONObject(
        id="pk", name=name, url=url, enabled="enabled", why="disabled_reason", organization=F("organization__name")
    )


def _jobs(reader: _Reader) -> QuerySet[Any, Any]:
    """Return the dead letters that the person may retry, newest first."""
    failed = ProcrastinateJob.objects.filter(status="failed").order_by("-id")
    if not reader.console_user.is_superuser:
        failed = jobs_about(
            failed,
            lambda model, subject: (
                reader.may(model, subject.needs, subject.tenant)
                & reader.may(model, P.OPERATE_ENVIRONMENT, subject.tenant)
            ),
        )
    elif reader.scope is not None:
        failed = jobs_about(failed, lambda model, subject: scope_condition(model, subject.tenant, reader.scope))
    return _part(failed, Kind.JOB, F("scheduled_at"), JSONObject(id="pk", task="task_name"))


def _credentials(reader: _Reader) -> Iterator[QuerySet[Any, Any]]:
    """Yield the person's own tokens, and other credentials that the person may replace, that expire within 7 days.

    Credentials that are valid for less than 8 days in total are left out (see ``find_expiring``).
    """
    console_user = reader.console_user
    shared = {"id": F("pk"), "prefix": F("prefix"), "expires_at": F("expires_at")}
    tokens = UserToken.objects.filter(user=console_user.user_id)
    keys = OrganizationKey.objects.filter(
        console_user.organization_condition(P.MANAGE_ORG_MEMBERSHIPS, "organization"),
        Q(project=None) | Q(project__deleted_at=None),
    )
    enrollment = EnrollmentToken.objects.filter(
        reader.may(EnrollmentToken, P.MANAGE_ENVIRONMENT), uses__lt=F("max_uses")
    )
    for kind, rows, values in (
        (Kind.USER_TOKEN, tokens, {"name": F("name"), "user": F("user_id")}),
        (
            Kind.ORGANIZATION_KEY,
            reaching(keys, reader.scope),
            {"name": F("name"), "of": F("organization_id"), "organization": F("organization__name")},
        ),
        (Kind.ENROLLMENT_TOKEN, enrollment, _place()),
    ):
        expiring = find_expiring(rows, console_user.now).order_by("expires_at", "pk")
        yield _part(expiring, kind, F("created_at"), JSONObject(**shared, **values))


def _quotas(reader: _Reader) -> QuerySet[Any, Any]:
    """Return the organizations that the person manages and that have used at least 90 % of a quota above 0."""
    used = {f"used_{quota}": used_of_organization(quota, reader.console_user.now) for quota in Quota}
    near = Q()
    for quota in Quota:
        near |= Q(**{f"{quota}__gt": 0, f"{quota}__lte": F(f"used_{quota}") * 10 / 9})
    rows = OrganizationQuotas.objects.filter(
        reader.console_user.organization_condition(P.MANAGE_ORG_MEMBERSHIPS, "organization")
    ).filter(scope_condition(OrganizationQuotas, "organization", reader.scope))
    limits = {str(quota): F(quota) for quota in Quota}
    values = JSONObject(id="organization_id", organization="organization__name", **limits, **{k: F(k) for k in used})
    return _part(rows.annotate(**used).filter(near).order_by("pk"), Kind.QUOTA, None, values)
