"""Acts: changes that people make in the console. Each asks for confirmation, then calls a service as that person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from django import forms
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.console.console_user import Tenant, actor_of, console_user_of
from apps.tenancy.models import Environment, Organization, Project, User
from apps.tenancy.permissions import Permission
from apps.tenancy.policy import Posture
from byteor_cloud.api import problems
from byteor_cloud.errors import DomainError


@dataclass(frozen=True, slots=True)
class ActContext:
    """The person who performs an act, and the person's comment."""

    actor: Actor
    user: User
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A change of a row. ``run`` calls a service; if that raises DomainError, the console shows the error."""

    name: str
    label: str
    explain: str
    run: Callable[[Any, ActContext], object]
    needs: Permission | None  # None: whoever sees the row may perform the act
    needs_on_prod: Permission | None = None  # needed in addition in an environment with the posture prod
    icon: str
    comment: Literal["none", "optional", "required"] = "none"
    comment_label: str = "Reason"
    dangerous: bool = False
    # Whether the row's page offers the act now. ``permitted_by`` makes it from a service's check.
    applies: Callable[[Any], bool] = lambda row: True
    # Whether the act deletes the row. The confirmation page then counts what is deleted with it.
    removes: bool = False


def is_permitted(act: Act, tenant: Tenant, held: frozenset[Permission]) -> bool:
    """Return whether somebody who holds these permissions in the tenant may perform the act there."""
    is_prod = isinstance(tenant, Environment) and tenant.posture == Posture.PROD
    needed = {act.needs, act.needs_on_prod if is_prod else None} - {None}
    return needed <= held


def permitted_by(check: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Return an ``applies`` that holds for the rows for which a service's ``check`` raises no DomainError."""

    def applies(row: Any) -> bool:
        try:
            check(row)
        except DomainError:
            return False
        return True

    return applies


class _CommentForm(forms.Form):
    comment = forms.CharField(max_length=500, strip=True, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))


def _form(act: Act, data: Any) -> forms.Form:
    form = _CommentForm(data)
    if act.comment == "none":
        del form.fields["comment"]
    else:
        form.fields["comment"].label = act.comment_label
        form.fields["comment"].required = act.comment == "required"
    return form


def perform(
    request: HttpRequest,
    act: Act,
    rows: list[Model],
    *,
    tenant_of: Callable[[Any], Tenant],
    context: dict[str, Any],
    back: str,
) -> HttpResponse:
    """Show the confirmation page; once confirmed, perform the act on each row.

    Raises PermissionDenied if the person lacks the act's permission in the tenant of one of the rows.
    """
    console_user, actor = console_user_of(request), actor_of(request)
    for tenant in {tenant_of(row) for row in rows}:
        if not is_permitted(act, tenant, console_user.permissions(tenant)):
            audit.count_denial(f"console.{act.name}", actor=actor, organization_id=_organization_id(tenant))
            raise PermissionDenied
    form = _form(act, request.POST if "_confirm" in request.POST else None)
    if request.method == "POST" and form.is_valid():
        user = request.user
        assert isinstance(user, User)  # noqa: S101  the site admits nobody else
        act_context = ActContext(actor, user, form.cleaned_data.get("comment", ""))
        for row in rows:
            _perform_on(request, act, row, act_context, context["model_admin"])
        return HttpResponseRedirect(back)
    titled_rows = [(row, context["model_admin"].page_title(row)) for row in rows]
    return TemplateResponse(
        request, "console/act.html", {**context, "act": act, "rows": titled_rows, "form": form, "back": back}
    )


def _organization_id(tenant: Tenant) -> UUID | None:
    match tenant:
        case Environment():
            return tenant.project.organization_id
        case Project():
            return tenant.organization_id
        case Organization():
            return tenant.pk
    return None


def _perform_on(request: HttpRequest, act: Act, row: Model, act_context: ActContext, model_admin: Any) -> None:
    title = model_admin.page_title(row)  # read before the act, which may delete the row
    try:
        act.run(row, act_context)
    except (DomainError, IntegrityError) as error:
        model_admin.message_user(request, f"{title}: {problems.as_domain_error(error).detail}", "error")
    else:
        model_admin.message_user(request, f"{act.label}: {title}.", "success")
