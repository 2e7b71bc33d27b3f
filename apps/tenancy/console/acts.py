"""What people do in the console: always through a service, as themselves, after a page that says what it means."""

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
from apps.tenancy.console.standing import Tenant, actor_of, standing_of
from apps.tenancy.models import Environment, Organization, Project, User
from apps.tenancy.permissions import Permission
from byteor_cloud.api import problems
from byteor_cloud.errors import DomainError


@dataclass(frozen=True, slots=True)
class Doing:
    """Who does it, and what they said."""

    actor: Actor
    user: User
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something to do to a row. ``run`` calls a service, whose DomainError is shown and changes nothing."""

    name: str
    label: str
    explain: str
    run: Callable[[Any, Doing], object]
    needs: Permission | None  # None: the rows that a person sees are theirs to act on
    icon: str
    words: Literal["none", "optional", "required"] = "none"
    words_label: str = "Reason"
    dangerous: bool = False
    # Whether the row's page offers it now. Where the service may refuse, ``permitted_by`` asks the service.
    applies: Callable[[Any], bool] = lambda row: True
    # It takes the row away, with all that is below it: count that first.
    removes: bool = False


def permitted_by(check: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Make an act apply to the rows for which a service's ``check`` raises no DomainError."""

    def applies(row: Any) -> bool:
        try:
            check(row)
        except DomainError:
            return False
        return True

    return applies


class _Words(forms.Form):
    words = forms.CharField(max_length=500, strip=True, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))


def _form(act: Act, data: Any) -> forms.Form:
    form = _Words(data)
    if act.words == "none":
        del form.fields["words"]
    else:
        form.fields["words"].label = act.words_label
        form.fields["words"].required = act.words == "required"
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
    """Ask first, then do it to each row. Raises PermissionDenied when a row's tenant does not permit it."""
    standing, actor = standing_of(request), actor_of(request)
    for tenant in {tenant_of(row) for row in rows}:
        if act.needs is not None and act.needs not in standing.permissions(tenant):
            audit.count_denial(f"console.{act.name}", actor=actor, organization_id=_organization_id(tenant))
            raise PermissionDenied
    form = _form(act, request.POST if "_confirm" in request.POST else None)
    if request.method == "POST" and form.is_valid():
        user = request.user
        assert isinstance(user, User)  # noqa: S101  the site lets nobody else in
        doing = Doing(actor, user, form.cleaned_data.get("words", ""))
        for row in rows:
            _do(request, act, row, doing, context["model_admin"])
        return HttpResponseRedirect(back)
    named = [(row, context["model_admin"].page_title(row)) for row in rows]
    return TemplateResponse(
        request, "console/act.html", {**context, "act": act, "rows": named, "form": form, "back": back}
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


def _do(request: HttpRequest, act: Act, row: Model, doing: Doing, model_admin: Any) -> None:
    said = model_admin.page_title(row)  # before: the act may remove it
    try:
        act.run(row, doing)
    except (DomainError, IntegrityError) as refused:
        model_admin.message_user(request, f"{said}: {problems.as_domain_error(refused).detail}", "error")
    else:
        model_admin.message_user(request, f"{act.label}: {said}.", "success")
