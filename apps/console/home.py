"""What the overview says while nothing is deployed yet: the steps up to the first deployment, and the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Exists
from django.http import HttpRequest
from django.urls import reverse

from apps.console.frame.console_user import ConsoleUser, console_user_of, who_holds
from apps.console.frame.scope import scope_of, with_scope
from apps.tenancy.models import Organization, Tenant, User
from apps.tenancy.permissions import GRANTS, Permission


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The step that makes the first row of a table. It is done when the scope has a row of the table."""

    rank: int
    title: str
    text: str
    needs: Permission | None
    url_name: str = ""  # the page that makes the row; by default the table, which has the button
    url_args: tuple[str, ...] = ()
    rows: int = 1  # how many rows the scope must have for it to be done


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step as the overview shows it."""

    title: str
    text: str
    is_done: bool
    is_next: bool
    url: str
    who: str  # who may do it, if the person may not


def find_steps(request: HttpRequest, admins: list[Any]) -> list[ShownStep]:
    """Return the steps up to the first deployment in the scope; none once that exists. They need one query."""
    console_user, scope = console_user_of(request), scope_of(request)
    steps = sorted(((each.first_step, each) for each in admins if each.first_step), key=lambda pair: pair[0].rank)
    if not steps:
        return []
    rows = {step.rank: each.get_queryset(request).order_by()[step.rows - 1 : step.rows] for step, each in steps}
    counted = {f"step_{rank}": Exists(queryset) for rank, queryset in rows.items()}
    done = User.objects.filter(pk=str(console_user.user_id)).annotate(**counted).values(*counted).get()
    if done[f"step_{steps[-1][0].rank}"]:
        return []
    shown, found_next = [], False
    for step, each in steps:
        is_done = done[f"step_{step.rank}"]
        is_next = not (is_done or found_next)
        found_next |= is_next
        url = reverse(step.url_name, args=step.url_args) if step.url_name else each.list_url()
        who = ""
        if step.needs is not None and not _may(console_user, scope, step.needs):
            who = f"{who_holds(step.needs)} can do this. Ask for the role, or for the step."
        shown.append(ShownStep(step.title, step.text, is_done, is_next, with_scope(url, scope), who))
    return shown


def _may(console_user: ConsoleUser, scope: Tenant, needed: Permission) -> bool:
    """Return whether the person has the permission in the scope or anywhere in it."""
    if console_user.is_superuser:
        return True
    if scope is None:
        return console_user.holds_anywhere(needed)
    if needed in console_user.permissions(scope):
        return True
    roles = console_user.roles.get(scope.pk) if isinstance(scope, Organization) else None
    return roles is not None and any(needed in GRANTS[role] for role in roles.projects.values())
