"""Acts: changes that people make in the console. An act asks for confirmation, then calls a service as the person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.text import capfirst

from apps.console.frame.columns import base_url_of, row_url, text_link
from apps.console.frame.console_user import ConsoleUser, actor_of, console_user_of, user_of
from apps.console.frame.forms import ActForm, CommentForm, first_result, new_form_id, send_once
from apps.console.frame.next_steps import NextStep, message_of, next_of, offer, result_of, url_after
from apps.console.frame.setup import url_of_next_step
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Organization, Project, Tenant, User
from apps.tenancy.permissions import Permission
from apps.tenancy.policy import Posture
from apps.tenancy.services import audit
from apps.tenancy.services.sent_forms import FormResult
from byteor_cloud.api import problems
from byteor_cloud.api.commands import Command
from byteor_cloud.api.compute_slot import compute_for, compute_slot
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.errors import DomainError

NOTHING_CHANGED = "Nothing changed."
# If an act is for all matching rows, its page lists at most this number of them. The messages after an act list at most
# this number of refusals.
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class ActContext:
    """The person who performs an act, their permissions and entered values, and the installation's URL."""

    actor: Actor
    user: User
    comment: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)  # the validated values of the form
    held: frozenset[Permission] = frozenset()  # the person's permissions in the tenant of the first row
    base_url: str = ""  # this installation's URL, without a trailing slash
    compute: Compute = here  # for services that compute
    # Services that start a child process enter the returned context first. It waits until the child may compute.
    slot: Callable[[], AbstractContextManager[None]] = nullcontext
    prepared: Any = None  # the result of the act's ``prepare``


@dataclass(frozen=True, slots=True)
class Secret:
    """A new secret, the row to which it belongs, and a command that uses the secret, if there is one.

    Only the response to the form shows the secret and the command.
    """

    row: Model
    text: str
    explain: str  # the text below the secret or, with ``live_url``, below the command
    command: str = ""
    live_url: str = ""  # the URL of a part that the page reloads, such as the agents that enroll with a token
    noun: str = "secret"
    remedy: str = "revoke it and create a new one"  # what to do if the secret is lost


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an act with a form was refused, and a link for the person. Unlike an error, it keeps what ``run`` changed."""

    detail: str
    url: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A change to a row, or the creation of another row. ``run`` calls a service, whose errors the console shows."""

    name: str
    label: str
    # What happened, as in "{} drained". {} is replaced by the subject, such as "agent edge-1" or "3 agents".
    done: str
    explain: str
    run: Callable[[Any, ActContext], object]  # returns False if there was nothing to change
    needs: Permission | None  # None: everybody who may see the row, subject to the fields below
    # Whether the person may perform the act on a row. If set, it decides instead of ``needs``, ``needs_on_prod`` and
    # ``needs_in_organization``. Lists and the global search still offer the act only to people who have ``needs``.
    may: Callable[[Any, ConsoleUser], bool] | None = None
    needs_on_prod: Permission | None = None  # also needed in environments with the posture prod
    needs_in_organization: Permission | None = None  # also needed on rows whose tenant is an organization
    only_self: bool = False  # the row is a person, and only that person may perform the act
    only_operators: bool = False  # only installation operators may perform the act
    icon: str
    comment: Literal["none", "optional", "required"] = "none"
    comment_label: str = "Reason"
    also: str = ""  # other words by which the global search finds the act, in lower case
    # The act's own form, used instead of a comment. ``run`` receives its values, and returns the created or changed
    # row, a Secret, a Refusal, or False. The form shows the errors.
    form: type[ActForm] | None = None
    # What an act with a form does before ``run``, for example a computation. It is called outside of the transaction in
    # which ``run`` is called, and must change nothing. ``run`` receives its result as ``context.prepared``.
    prepare: Callable[[Any, ActContext], object] | None = None
    # Returns sentences about the effects of the act on the selected rows of a list, with this comment. If the comment
    # is required, the page asks for it first.
    preview_bulk: Callable[[Sequence[Any], str], Sequence[str]] | None = None
    # Performs the act on several rows of a list and returns the number of changed rows. Without it, ``run`` is called
    # for each row.
    run_all: Callable[[Sequence[Any], ActContext], int] | None = None
    # If set, the page of this table offers the act, which creates a row in the table.
    creates: type[Model] | None = None
    # What people usually do after an act with a form. The act's message, or the page with its secret, can link to it. A
    # string says why there is no next step. Each act with ``creates`` has a step or such a string.
    next_step: NextStep | str | None = None
    on_page: bool = True  # whether the row's page offers the act; otherwise only tables do
    dangerous: bool = False
    # Whether the row's page offers the act in the row's current state. ``permitted_by`` makes this from a check.
    applies: Callable[[Any], bool] = lambda row: True
    # Whether the act deletes the row. If it is a project or an environment, the confirmation page counts the rows that
    # are deleted with it.
    removes: bool = False
    # Returns what the act would do to the row now, in one sentence. Raises DomainError if it finds that the act is not
    # possible now. If set, the sentence describes the row's button and replaces ``explain`` on the act's page, and the
    # row's page offers the act whenever ``preview`` raises no DomainError, regardless of ``applies``.
    preview: Callable[[Any], str] | None = None

    @classmethod
    def of(cls, command: Command, *, body: Mapping[str, Any] | None = None, **fields: Any) -> Act:
        """Return the act that runs a command of the API, with the command's permissions, check and service.

        ``body`` has fixed values for fields of the command's body. If the act has a comment, the comment is the body's
        ``reason``. ``fields`` are the act's other fields. They override the fields that come from the command.
        """
        fixed = body or {}
        has_reason = fields.get("comment", "none") != "none"

        def run(row: Any, context: ActContext) -> object:
            reason = {"reason": context.comment} if has_reason else {}
            return command.run(row, actor=context.actor, **fixed, **reason)

        needs, on_prod = command.operation.needs, command.operation.needs_on_prod
        given: dict[str, Any] = {
            "name": command.name,
            "run": run,
            "needs": needs and Permission(needs),
            "needs_on_prod": on_prod and Permission(on_prod),
            "applies": permitted_by(partial(command.check, **fixed)),
        }
        return cls(**{**given, **fields})


def is_permitted(act: Act, row: Any, tenant: Tenant, console_user: ConsoleUser) -> bool:
    """Return whether the person may perform the act on a row of this tenant."""
    if act.only_self and row.pk != console_user.user_id:
        return False
    if act.only_operators and not console_user.is_superuser:
        return False
    if act.may is not None:
        return act.may(row, console_user)
    needed = {act.needs}
    if isinstance(tenant, Environment) and tenant.posture == Posture.PROD:
        needed.add(act.needs_on_prod)
    if isinstance(tenant, Organization):
        needed.add(act.needs_in_organization)
    return needed - {None} <= console_user.permissions(tenant)


def preview_of(act: Act, row: Any) -> str | None:
    """Return the act's preview for the row, or ``explain`` without a preview.

    Returns None if ``preview`` raises DomainError or, without a preview, if ``applies`` is false for the row.
    """
    if act.preview is None:
        return act.explain if act.applies(row) else None
    try:
        return act.preview(row)
    except DomainError:
        return None


def permitted_by(check: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Return an ``applies`` that is true unless the service's ``check`` raises DomainError for the row."""

    def applies(row: Any) -> bool:
        try:
            check(row)
        except DomainError:
            return False
        return True

    return applies


def _form(act: Act, data: Any, row: Any, held: frozenset[Permission], compute: Compute) -> ActForm:
    form = (act.form or CommentForm)(data, row=row, held=held, compute=compute)
    if act.form is not None:
        return form
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
    """Show the act's page, or perform the act on each row if the person has confirmed it.

    If the person already sent the same form and its result is still stored, return the same response again. Raises
    PermissionDenied if there is a row on which the person may not perform the act, unless ``respond_again`` returns a
    response.
    """
    console_user, actor = console_user_of(request), actor_of(request)
    for row in rows:
        if not is_permitted(act, row, tenant_of(row), console_user):
            if repeated := respond_again(request, context["model_admin"]):
                return repeated
            organization_id = _organization_id(tenant_of(row))
            audit.count_denial(f"console.{act.name}", actor=actor, organization_id=organization_id)
            raise PermissionDenied
    held, compute = console_user.permissions(tenant_of(rows[0])), compute_for(request)
    form = _form(act, request.POST if "_confirm" in request.POST else None, rows[0], held, compute)
    chosen = _digest(rows)
    if form.is_bound and request.POST.get("_chosen", chosen) != chosen:
        form.add_error(None, "The matching rows have changed in the meantime. Check them and confirm again.")
    if form.is_bound and request.method == "POST" and "_preview" not in request.POST:
        result = _send(request, act, rows, form, held, context, back) if form.is_valid() else None
        if result is not None:
            return _respond(request, act, result, context)
        if (first := first_result(request)) is not None and "refused" not in first:
            return _respond(request, act, first, context)
    shown_rows = rows[:_MOST_NAMED] if context.get("every") else rows
    titled_rows = [(row, context["model_admin"].row_name(row)) for row in shown_rows]
    explain = act.explain if "bulk" in context else preview_of(act, rows[0]) or act.explain
    shown = {
        **context,
        "act": act,
        "explain": explain,
        "rows": titled_rows,
        "count": len(rows),
        "chosen": chosen,
        "form": form,
        "form_id": new_form_id(),
        "has_form": act.form is not None,
        "back": back,
        "preview": _preview(act, rows, form) if context.get("bulk") else (),
        "asks_first": bool(context.get("bulk")) and act.preview_bulk is not None and act.comment == "required",
    }
    return TemplateResponse(request, "console/act.html", shown)


class _NothingDoneError(Exception):
    """An act without a form was refused. ``messages`` are as in ``_perform_on``."""

    def __init__(self, messages: list[tuple[str, str]]) -> None:
        super().__init__(messages)
        self.messages = messages


def _send(
    request: HttpRequest,
    act: Act,
    rows: list[Model],
    form: ActForm,
    held: frozenset[Permission],
    context: dict[str, Any],
    back: str,
) -> FormResult | None:
    """Perform the act for a valid form, or return the first result if the form was sent before.

    If ``send_once`` raises Conflict, or if an act with a form fails or is refused, add the error to the form and return
    None. The errors of an act without a form are messages in the result.
    """
    comment, model_admin = form.cleaned_data.get("comment", "") if act.form is None else "", context["model_admin"]
    act_context = ActContext(
        actor_of(request), user_of(request), comment, form.values, held, base_url_of(request), compute_for(request),
        partial(compute_slot, request),
    )  # fmt: skip
    try:
        if act.form is None:
            # The order in which services take locks is only safe for one row. Several rows in one transaction could
            # cause a deadlock.
            in_steps = len(rows) > 1 and act.run_all is None

            def work() -> FormResult:
                messages = _perform_on(act, rows, act_context, model_admin)
                if not in_steps and messages[0][0] == "error":
                    raise _NothingDoneError(messages)  # so that the form can be sent again
                return {"url": back, "messages": messages}

            return send_once(request, work, in_steps=in_steps)
        if act.prepare is not None:
            act_context = replace(act_context, prepared=act.prepare(rows[0], act_context))
        site, console_user = model_admin.admin_site, console_user_of(request)
        result = send_once(request, lambda: _result(site, act, rows[0], act.run(rows[0], act_context), console_user))
    except _NothingDoneError as refused:
        return {"url": back, "messages": refused.messages}
    except (DomainError, IntegrityError) as error:
        form.show(problems.as_domain_error(error))
        return None
    if "refused" in result:
        form.add_error(None, format_html("{} {}", result["refused"], text_link(result["url"], result["link"])))
        return None
    return result


def _digest(rows: Sequence[Model]) -> str:
    """Return a digest of the rows' keys, which shows whether the matching rows have changed since the last request."""
    return sha256(",".join(sorted(str(row.pk) for row in rows)).encode()).hexdigest()


def _preview(act: Act, rows: Sequence[Model], form: ActForm) -> Sequence[str]:
    """Return the sentences of the bulk preview.

    Returns none if the act has no preview, if the act requires a comment and the form is not sent or has an error, or
    if the preview raises a DomainError, which is added to the form.
    """
    is_complete = form.is_bound and form.is_valid()
    if act.preview_bulk is None or (act.comment == "required" and not is_complete):
        return ()
    try:
        return act.preview_bulk(rows, form.cleaned_data.get("comment", "") if is_complete else "")
    except DomainError as error:
        form.show(error)
        return ()


def what_happened(act: Act, subject: str) -> str:
    """Return the phrase for what the act did to ``subject``, such as "agent edge-1" or "3 agents"."""
    return str(capfirst(act.done.format(subject)))


def _name(model_admin: Any, row: Model) -> str:
    """Return the title of the row's page with a lower-case first letter, as the subject of a phrase."""
    title: str = model_admin.page_title(row)
    return title[0].lower() + title[1:]


def _result(site: Any, act: Act, row: Model, made: Any, console_user: ConsoleUser) -> FormResult:
    """Return the URL of the created, changed or unchanged row, and the new secret or what happened, if anything.

    For a Refusal, return its detail and its link.
    """
    if isinstance(made, Secret):
        tenant = site.get_model_admin(type(made.row)).tenant_of(made.row)
        return {
            "url": row_url(made.row), "secret": made.text, "explain": made.explain, "command": made.command,
            "live_url": made.live_url, "noun": made.noun, "remedy": made.remedy, "key": str(made.row.pk),
            **offer(act.next_step, made.row, tenant, console_user),
        }  # fmt: skip
    if isinstance(made, Refusal):
        return {"refused": made.detail, "url": made.url, "link": made.link}
    if made is False:
        return {"url": row_url(row)}
    model_admin = site.get_model_admin(type(made))
    done = f"{what_happened(act, _name(model_admin, made))}."
    step = act.next_step if isinstance(act.next_step, NextStep) else None
    return result_of(made, done, step, tenant=model_admin.tenant_of(made), console_user=console_user)


def _respond(request: HttpRequest, act: Act, result: FormResult, context: dict[str, Any]) -> HttpResponse:
    """Show the new secret, or redirect with messages. Only the response to the form contains the secret."""
    if "secret" in result:
        model_admin = context["model_admin"]
        of = model_admin if act.creates is None else model_admin.admin_site.get_model_admin(act.creates)
        url = _url_in_setup(request, act) or url_after(request, result)
        title, result = what_happened(act, of.singular), {**result, "url": url}
        shown = {**context, "title": title, "act": act, "result": result, "returns": bool(next_of(request))}
        return TemplateResponse(request, "console/secret.html", shown, headers={"Cache-Control": "no-store"})
    if "done" in result and (following := _url_in_setup(request, act)):
        context["model_admin"].message_user(request, result["done"], "success")
        return HttpResponseRedirect(following)
    return _redirect(request, result, context["model_admin"])


def _url_in_setup(request: HttpRequest, act: Act) -> str | None:
    """Return the URL of the next step of the setup.

    Returns None if the person does not follow the setup or returns to a page, or if the act is no step of the setup.
    """
    return None if next_of(request) else url_of_next_step(request, act.creates)


def respond_again(request: HttpRequest, model_admin: Any) -> HttpResponse | None:
    """Return the response to a form that the person already sent, even if its rows are now deleted or forbidden.

    Returns None if ``first_result`` does, or if the result contains a secret or a refusal.
    """
    result = first_result(request)
    if result is None or "secret" in result or "refused" in result:
        return None
    return _redirect(request, result, model_admin)


def _redirect(request: HttpRequest, result: FormResult, model_admin: Any) -> HttpResponse:
    """Redirect to ``url_after`` with messages about what happened."""
    done = ("success", message_of(request, result)) if "done" in result else ("info", NOTHING_CHANGED)
    for level, message in result.get("messages", [done]):
        model_admin.message_user(request, message, level)
    return HttpResponseRedirect(url_after(request, result))


def _organization_id(tenant: Tenant) -> UUID | None:
    match tenant:
        case Environment():
            return tenant.project.organization_id
        case Project():
            return tenant.organization_id
        case Organization():
            return tenant.pk
    return None


def _perform_on(act: Act, rows: list[Model], act_context: ActContext, model_admin: Any) -> list[tuple[str, str]]:
    """Perform an act without a form on each row. Returns the level and text of the messages about what happened."""
    if act.run_all is not None and len(rows) > 1:
        try:
            with transaction.atomic():
                count = act.run_all(rows, act_context)
        except (DomainError, IntegrityError) as error:
            return [("error", problems.as_domain_error(error).detail)]
        if not count:
            return [("info", NOTHING_CHANGED)]
        return [("success", f"{what_happened(act, _several(model_admin, count))}.")]
    changed, refusals = [], []
    for row in rows:
        # Read the names before the act, because the act may delete the row.
        title, name = model_admin.row_name(row), _name(model_admin, row)
        try:
            with transaction.atomic():
                if act.run(row, act_context) is not False:
                    changed.append(name)
        except (DomainError, IntegrityError) as error:
            refusals.append(f"{title}: {problems.as_domain_error(error).detail}")
    messages = [("error", refusal) for refusal in refusals[:_MOST_NAMED]]
    if len(refusals) > _MOST_NAMED:
        rest = _several(model_admin, len(refusals) - _MOST_NAMED)
        messages.append(("error", f"In addition, {rest} did not change."))
    if changed:
        subject = changed[0] if len(changed) == 1 else _several(model_admin, len(changed))
        messages.append(("success", f"{what_happened(act, subject)}."))
    return messages or [("info", NOTHING_CHANGED)]


def _several(model_admin: Any, count: int) -> str:
    return f"{count:,} {model_admin.singular if count == 1 else model_admin.plural}"
