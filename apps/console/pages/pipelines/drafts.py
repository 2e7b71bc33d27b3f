"""Console pages of drafts, with the plan editor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, RequestDataTooBig, ValidationError
from django.db import IntegrityError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET, require_POST
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.console.frame import ActionPage, FoundBy, ReadOnlyAdmin, VisibleRowsFilter, short_id, site, state_pill
from apps.console.frame.acting import button
from apps.console.frame.columns import page_url
from apps.console.frame.console_user import actor_of, check_may_operate, console_user_of, may_operate
from apps.console.frame.forms import new_form_id, send_once
from apps.console.frame.next_steps import CHOSEN, conclude, returning
from apps.console.frame.scope import granted_condition, scope_of, with_scope
from apps.console.frame.site import listed_rows
from apps.console.pages.organizations.acts import CREATE_ENVIRONMENT
from apps.console.pages.pipelines import editor
from apps.console.pages.pipelines.reference import plan_reference
from apps.console.pages.regressions.acts import TEST_DRAFT, tests_panel
from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts
from apps.releases.models import ConfigBundle
from apps.tenancy.models import Environment, Project
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.sent_forms import FormResult
from byteor_cloud.api import problems
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.computing.computations import plan_text
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import DomainError, InvalidInput, PayloadTooLarge


class _EnvironmentChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # only the stubs declare it as generic
    """A choice of environments, labeled with organization and project because environments can have equal names."""

    def label_from_instance(self, obj: Environment) -> str:
        return f"{obj.project.organization} / {obj.project} / {obj}"


class _NewDraft(forms.Form):
    """The form for a new draft."""

    environment = _EnvironmentChoice(Environment.objects.none(), widget=UnfoldAdminSelectWidget, empty_label="Choose…")
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    target = forms.ChoiceField(choices=editor.TARGETS, widget=UnfoldAdminSelectWidget, label="Kind of pipeline")

    def __init__(self, environments: QuerySet[Environment], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["environment"].queryset = environments  # type: ignore[attr-defined]  # a ModelChoiceField

    def clean_name(self) -> str:
        """Apply the API's rule for names. Raises ValidationError for characters that are not printable."""
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise ValidationError("Only printable characters are allowed.")
        return name


@admin.register(Draft, site=site)
class DraftAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section = "Pipelines"
    found_by = FoundBy("edit_document", name="name")
    related = ("environment__project__organization",)
    list_display = ("name", "compiles", "environment", "revision", "spec_hash", "updated_by", "updated_at")
    narrow_columns = ("compiles", "updated_at")
    list_filter = (("environment", VisibleRowsFilter),)
    search_fields = ("name", "spec_hash", "created_by", "=id")
    acts = (TEST_DRAFT,)
    action_pages = (
        ActionPage(
            label="New draft", also="create pipeline plan", icon="edit_document", needs=P.OPERATE_ENVIRONMENT,
            model=Environment, url_of=lambda row: f"{page_url(Draft, 'new')}?environment={row.pk}",
            start=lambda: page_url(Draft, "new"),
        ),
    )  # fmt: skip

    @admin.display(description="Plan")
    def compiles(self, row: Draft) -> str:
        return state_pill("compiles" if row.spec_hash else "does not compile")

    def summary(self, request: HttpRequest, row: Draft) -> dict[str, Any]:
        """Show whether the saved plan compiles, its diagnostics, and the newest regressions of the draft."""
        rows = [
            (state_pill(each["severity"]), each["code"], each["pointer"] or "/", each["message"])
            for each in row.diagnostics
        ]
        return {
            "facts": [
                ("Plan", self.compiles(row)),
                ("Spec hash", short_id(row.spec_hash)),
                ("Revision", row.revision),
                ("Saved by", row.updated_by),
            ],
            "panels": [
                {
                    "title": "Diagnostics of the saved plan",
                    "url": _editor_url(row),
                    "link": "Open the editor" if may_operate(request, row.environment) else "Show the plan",
                    "columns": ["", "Code", "Pointer", "Message"],
                    "rows": rows,
                    "empty": "The plan compiles without diagnostics.",
                },
                tests_panel(row),
            ],
        }

    # -- the editor ---------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        """Add the page for a new draft, the editor, and the URLs that the editor's script calls."""
        pages: dict[str, Callable[..., HttpResponse]] = {
            "new": self.new_view,
            "<uuid:pk>/edit": self.edit_view,
            "<uuid:pk>/preview": self.preview_view,
            "<uuid:pk>/save": self.save_view,
            "<uuid:pk>/promote": self.promote_view,
        }
        urls = [
            path(f"{route}/", self.admin_site.admin_view(view), name=f"pipelines_draft_{route.rpartition('/')[2]}")
            for route, view in pages.items()
        ]
        return [*urls, *super().get_urls()]

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        title = "Edit" if may_operate(request, row.environment) else "Show the plan"
        return [button(title, "edit", _editor_url(row), "primary"), *super()._buttons(request, row)]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the table, with a button for a new draft if the person may create one."""
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and console_user_of(request).holds_anywhere(P.OPERATE_ENVIRONMENT):
            chosen = request.GET.get("environment__id__exact")
            url = page_url(Draft, "new")
            url += f"?environment={chosen}" if chosen in _ids(_operable(request)) else ""
            new = button("New draft", "add", with_scope(url, scope_of(request)), "primary")
            response.context_data = {**(response.context_data or {}), "actions_list": [new]}
        return response

    def new_view(self, request: HttpRequest) -> HttpResponse:
        """Show the form for a new draft, or create the draft with a plan that compiles.

        A new draft is opened in the editor, unless the URL names a page to return to.
        """
        if not console_user_of(request).holds_anywhere(P.OPERATE_ENVIRONMENT):
            raise PermissionDenied
        environments = _operable(request)
        if request.method == "POST":
            form = _NewDraft(environments, request.POST)
            if form.is_valid() and (result := _create(request, form)):
                return HttpResponseRedirect(conclude(request, result))
        else:
            scope = scope_of(request)
            chosen = request.GET.get(CHOSEN) or request.GET.get("environment", str(scope.pk) if scope else "")
            known = _ids(environments)
            only = next(iter(known)) if len(known) == 1 else None
            form = _NewDraft(environments, initial={"environment": chosen if chosen in known else only})
        url = returning(page_url(Project, "choice", CREATE_ENVIRONMENT.name), request.get_full_path())
        creating = [] if environments.exists() else [(url, CREATE_ENVIRONMENT.label)]
        context = self._context(request, "New draft", form=form, form_id=new_form_id(), creating=creating)
        return TemplateResponse(request, "console/new_draft.html", context)

    def _context(self, request: HttpRequest, title: str, **context: Any) -> dict[str, Any]:
        return {**self.admin_site.each_context(request), "opts": self.opts, "title": title, **context}

    @method_decorator(require_GET)
    def edit_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show the editor. People who may not edit the draft see the saved plan and its stored diagnostics."""
        draft = self.get_object(request, str(pk))
        if draft is None:
            raise Http404
        name = Draft.objects.filter(pk=draft.pk).values_list("plan__name", flat=True).first()
        related = Q(draft_id=draft.pk) | (Q(name=name) if isinstance(name, str) else Q())
        versions = without_large(Version.objects.filter(related, environment=draft.environment))
        may_edit = may_operate(request, draft.environment)
        stored = [] if may_edit else [{**each, "pill": state_pill(each["severity"])} for each in draft.diagnostics]
        context = self._context(
            request,
            f"Plan of {draft.name}",
            original=draft,
            text=compute_for(request)(plan_text, draft.plan),
            may_edit=may_edit,
            compiles=self.compiles(draft),
            findings=stored,
            targets=editor.TARGETS,
            errors=sum(each["severity"] == "error" for each in draft.diagnostics),
            reference=plan_reference() if may_edit else None,
            versions=versions.order_by("-id")[: editor.MAX_CHOICES],
        )
        return TemplateResponse(request, "console/editor.html", context)

    @method_decorator(require_POST)
    def preview_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Compile the plan text in the request body, and return the result."""
        return self._respond(request, pk, "preview", _preview)

    @method_decorator(require_POST)
    def save_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Save the plan text in the request body, and return the outcome."""
        return self._respond(request, pk, "save", _save)

    @method_decorator(require_POST)
    def promote_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Promote the saved plan if it equals the plan text in the request body."""
        return self._respond(request, pk, "promote", _promote)

    def _respond(
        self, request: HttpRequest, pk: UUID, name: str, act: Callable[[HttpRequest, Draft], dict[str, Any]]
    ) -> HttpResponse:
        """Call ``act`` for the editor and return its outcome as JSON. Its domain errors are problems, as in the API."""
        draft = self.get_object(request, str(pk))
        if draft is None:
            raise Http404
        check_may_operate(request, draft.environment, name)
        try:
            return JsonResponse(act(request, draft))
        except RequestDataTooBig:
            return problems.respond(request, PayloadTooLarge("The text is too long for a plan."))
        except DomainError as refused:
            return problems.respond(request, refused)


def _editor_url(draft: Draft) -> str:
    return page_url(Draft, "edit", draft.pk)


def _operable(request: HttpRequest) -> QuerySet[Environment]:
    """Return the environments in which the person may create drafts, sorted by organization, project and name.

    On the list of drafts, only environments in the list's scope are returned.
    """
    may = granted_condition(Environment, "", P.OPERATE_ENVIRONMENT, console_user_of(request))
    return (
        listed_rows(request, Environment).filter(may).order_by("project__organization__name", "project__name", "name")
    )


def _ids(environments: QuerySet[Environment]) -> set[str]:
    return {str(pk) for pk in environments.values_list("pk", flat=True)}


def _create(request: HttpRequest, form: _NewDraft) -> FormResult | None:
    """Create the draft and return the result of its form. On an error, add the error to the form and return None."""
    values = form.cleaned_data
    plan = editor.first_plan(values["target"], values["name"])
    new = partial(drafts.create_draft, plan=plan, actor=actor_of(request))
    try:
        return send_once(
            request, lambda: _created(new(environment=values["environment"], name=values["name"]))
        )  # fmt: skip
    except (DomainError, IntegrityError) as refused:
        error = problems.as_domain_error(refused)
        form.add_error("name" if error.reason == "name_taken" else None, error.detail)
        return None


def _created(draft: Draft) -> FormResult:
    return {"url": _editor_url(draft), "key": str(draft.pk), "done": f"Draft {draft} created."}


def _preview(request: HttpRequest, draft: Draft) -> dict[str, Any]:
    target, against = request.GET.get("target") or None, request.GET.get("against")
    if target is not None and target not in editor.TARGETS:
        raise InvalidInput(f"The query parameter `target` must be one of {', '.join(editor.TARGETS)}.")
    version = editor.find_version(draft.environment, against) if against else None
    return editor.preview(request.body, target=target, against=version, compute=compute_for(request))


def _revision(request: HttpRequest) -> int:
    given = request.GET.get("revision", "")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InvalidInput("The query parameter `revision` must consist of 1 to 9 digits.")
    return int(given)


def _save(request: HttpRequest, draft: Draft) -> dict[str, Any]:
    revision, compute = _revision(request), compute_for(request)
    return editor.save(draft, request.body, revision=revision, actor=actor_of(request), compute=compute)


def _promote(request: HttpRequest, draft: Draft) -> dict[str, Any]:
    revision, compute = _revision(request), compute_for(request)
    result = editor.promote(draft, request.body, revision=revision, actor=actor_of(request), compute=compute)
    if "id" in result:
        result["url"] = page_url(Version, "change", result["id"])
        result["next"] = page_url(ConfigBundle, "new", result["id"])
        if result["fresh"]:
            messages.success(request, f"Draft {draft.name} promoted to {result['version']}.")
    return result
