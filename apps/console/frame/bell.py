"""The numbers on the bell and on the menu entry "Approvals": unread notifications, and approvals to decide on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.db.models import Exists, F, Func, IntegerField, JSONField, OuterRef, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.db.models.lookups import Exact
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET

from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.personal import CountRows, personal_query
from apps.console.frame.scope import granted_condition, live_tenant_condition
from apps.notifications.services import bell
from apps.releases.models import Approval, ApprovalDecision
from apps.releases.services import replay_gate
from apps.tenancy.models import User
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ApprovalStatus
from byteor_cloud.database.together import Plan, run

MOST: Final = 99  # larger numbers are shown as "99+"


class Bell:
    """The numbers as a page shows them. ``counts`` is called when a template needs a number."""

    def __init__(self, counts: Callable[[], tuple[int, int]]) -> None:
        self._counts = counts

    @property
    def unread(self) -> str:
        """The number of unread notifications; empty if there are none."""
        return _shown(self._counts()[0])

    @property
    def approvals(self) -> str:
        """The number of approvals that await the person's decision, in all scopes; empty if there are none."""
        return _shown(self._counts()[1])


def plan_counts(request: HttpRequest) -> Plan[tuple[int, int]]:
    """Return the ``Plan`` for the numbers of unread notifications and approvals, each at most ``MOST`` + 1."""
    query, values = personal_query(_count, None, console_user_of(request))
    (((unread, approvals),),) = yield [query.statement(*values)]
    return unread, approvals


def _shown(count: int) -> str:
    return f"{MOST}+" if count > MOST else str(count or "")


@require_GET
def counts_view(request: HttpRequest) -> HttpResponse:
    """Return the current numbers, each at most ``MOST`` + 1, as JSON."""
    unread, approvals = run(plan_counts(request))
    return JsonResponse({"unread": unread, "approvals": approvals})


def _count(_: None, console_user: ConsoleUser) -> QuerySet[Any, Any]:
    """Return a row with both numbers, each at most ``MOST`` + 1."""
    person = User(pk=console_user.user_id)
    unread = bell.notifications_of(person).filter(read_at=None)
    approvals = Approval.objects.filter(
        live_tenant_condition(Approval, "environment"), awaiting_decision_by(console_user)
    )
    return User.objects.filter(pk=person.pk).values_list(
        *(CountRows(rows.order_by().values("pk")[: MOST + 1]) for rows in (unread, approvals))
    )


def awaiting_decision_by(console_user: ConsoleUser) -> Q:
    """Return the condition that an approval is pending, has not expired, and awaits the person's decision.

    The person must be a reviewer who may view the environment. If there are no reviewers, they must have the permission
    to operate the environment. They must not have decided yet. Unless self-approval is allowed, the requester must be
    known and must be somebody else. An approval does not expire while its deadline is paused.
    """
    user_id = console_user.user_id
    mine = ApprovalDecision.objects.filter(approval=OuterRef("pk"), user=user_id)
    # Functions instead of JSON constants, because compiled queries accept no JSON (``CompiledQuery``).
    is_open = Exact(Func(F("reviewers"), function="jsonb_array_length", output_field=IntegerField()), 0)
    me = Func(Cast(Value(user_id), TextField()), function="to_jsonb", output_field=JSONField())
    return (
        Q(status=ApprovalStatus.PENDING)
        & (
            Q(expires_at__gt=console_user.now)
            | Q(deployment__in=replay_gate.standing_still())
            | Q(rollout__paused_at__isnull=False)
        )
        & (
            Q(is_open) & granted_condition(Approval, "environment", P.OPERATE_ENVIRONMENT, console_user)
            | Q(reviewers__contains=me) & granted_condition(Approval, "environment", P.VIEW_ENVIRONMENT, console_user)
        )
        & (Q(allow_self_approval=True) | Q(requester_id__isnull=False) & ~Q(requester_id=user_id))
        & ~Q(Exists(mine))
    )
