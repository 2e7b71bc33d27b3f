"""The base class of tables whose rows have acts. It provides the acts' buttons, pages and bulk actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

from django.contrib import admin
from django.contrib.admin import ActionLocation
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from unfold.admin import ModelAdmin
from unfold.enums import ActionVariant

from apps.console.frame.acts import NOTHING_CHANGED, Act, is_permitted, perform, preview_of, respond_again
from apps.console.frame.columns import act_url, list_url, page_url, row_url, tenant_path
from apps.console.frame.console_user import console_user_of
from apps.console.frame.large import count_each
from apps.console.frame.next_steps import CHOSEN, next_of, returning
from apps.console.frame.scope import granted_condition, path_to, scope_of, with_scope
from apps.tenancy.models import Environment, Project, Tenant

MAX_BULK_ROWS = 100


def button(
    title: str, icon: str, url: str, variant: Literal["default", "primary", "danger"], *, description: str = ""
) -> dict[str, Any]:
    """Return a button for a page header, in the form that the theme's templates read."""
    attrs = {"title": description} if description else {}
    return {"title": title, "icon": icon, "variant": ActionVariant(variant), "attrs": attrs, "path": url}


def _path_up(model: type[Model], tenant: str, parent: type[Model]) -> str | None:
    """Return the field path from a table to ``parent``, or None.

    A row that belongs to an organization, such as a webhook, may be limited to a project or an environment. It is then
    deleted with that project or environment.
    """
    if (path := path_to(model, tenant, parent)) is not None:
        return path
    direct = [each.name for each in model._meta.fields if each.related_model is parent]
    return direct[0] if direct else None


class ActingAdmin(ModelAdmin):  # type: ignore[misc]  # untyped library
    """A table whose rows have acts.

    ``tenant`` is the field path to the row's environment, project or organization ("" if the row is one of these). If
    ``tenant`` is None, only installation operators may see the table, unless the class overrides
    ``has_view_permission`` and ``narrow``.
    """

    tenant: ClassVar[str | None] = None
    acts: ClassVar[Sequence[Act]] = ()
    most_bulk_rows: ClassVar[int] = MAX_BULK_ROWS  # the maximum number of rows of a bulk act with ``run_all``
    bulk_hint: ClassVar[str] = ""  # a sentence on how to change more rows than ``most_bulk_rows``

    def tenant_of(self, row: Any) -> Tenant:
        """Return the environment, project or organization of the row; None if the table or the row has none."""
        if self.tenant is None:
            return None
        for part in filter(None, self.tenant.split("__")):
            row = getattr(row, part)
        return cast("Tenant", row)

    def rows_for_act(self, request: HttpRequest, act: Act) -> QuerySet[Any]:
        """Return the visible rows in whose tenant the person has ``act.needs``.

        With ``act.only_self``, returns only the person's own row. Otherwise, if the act needs no permission or the
        table has no tenant, returns all visible rows.
        """
        console_user = console_user_of(request)
        rows: QuerySet[Any] = self.get_queryset(request)
        if act.only_self:
            return rows.filter(pk=console_user.user_id)
        if act.needs is None or self.tenant is None:
            return rows
        return rows.filter(granted_condition(self.model, self.tenant, act.needs, console_user))

    def rows_deleted_with(self, request: HttpRequest, row: Model) -> list[tuple[str, int | str]]:
        """Count the visible rows that are deleted with ``row``. Returns the title and row count of each table with any.

        Counts only rows that refer to ``row`` directly or through ``tenant``.
        """
        found = {
            other.menu_title(): other.get_queryset(request).filter(**{at: row})
            for model, other in self.admin_site._registry.items()
            if other.tenant is not None and model is not type(row) and (at := _path_up(model, other.tenant, type(row)))
        }
        return [(title, count) for title, count in zip(found, count_each(list(found.values())), strict=True) if count]

    def get_urls(self) -> list[Any]:
        """Return Django's URLs, and those of two pages: an act on a row, and the choice of a row for an act."""
        act, choice = self.admin_site.admin_view(self.act_view), self.admin_site.admin_view(self.choice_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("act/<slug:act>/", choice, name=f"{name}_choice"),
            path("<path:object_id>/act/<slug:act>/", act, name=f"{name}_act"),
            *super().get_urls(),
        ]

    def _buttons(self, request: HttpRequest, row: Model) -> list[dict[str, Any]]:
        console_user, tenant = console_user_of(request), self.tenant_of(row)
        return [
            button(
                act.label, act.icon, act_url(row, act.name), "danger" if act.dangerous else "default",
                description=text if act.preview else "",
            )
            for act in self.acts
            if act.on_page and is_permitted(act, row, tenant, console_user)
            for text in [preview_of(act, row)]
            if text is not None
        ]  # fmt: skip

    def _buttons_of_table(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return the buttons above the table: the acts that create a row of this table."""
        return [
            button(act.label, act.icon, with_scope(url, scope_of(request)), "danger" if act.dangerous else "primary")
            for model, other in self.admin_site._registry.items()
            for act in other.acts
            if act.creates is self.model and self._may_somewhere(request, act)
            for url in [page_url(model, "choice", act.name)]
        ]

    @staticmethod
    def _may_somewhere(request: HttpRequest, act: Act) -> bool:
        return act.needs is None or console_user_of(request).holds_anywhere(act.needs)

    def choice_view(self, request: HttpRequest, act: str) -> HttpResponse:
        """List rows on which the person can perform the act, or redirect to the act if there is only one such row.

        Also redirects if the person returns from the page on which they created such a row. If there are no rows, links
        to the pages on which the person can create one.
        """
        found = next((each for each in self.acts if each.name == act and each.creates is not None), None)
        if found is None:
            raise Http404
        if not self._may_somewhere(request, found):
            raise PermissionDenied
        rows = list(self.rows_for_act(request, found)[: MAX_BULK_ROWS + 1])
        back = next_of(request)
        new = [row for row in rows if str(row.pk) == request.GET.get(CHOSEN)]
        if len(only := new or rows) == 1:
            return HttpResponseRedirect(returning(act_url(only[0], found.name), back))
        missing = [] if rows else self._buttons_of_table(request)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": found.label,
            "act": found,
            "choices": [(returning(act_url(row, found.name), back), tenant_path(row)) for row in rows[:MAX_BULK_ROWS]],
            "creating": [(returning(each["path"], request.get_full_path()), each["title"]) for each in missing],
            "more": len(rows) > MAX_BULK_ROWS,
        }
        return TemplateResponse(request, "console/choice.html", context)

    def act_view(self, request: HttpRequest, object_id: str, act: str) -> HttpResponse:
        """Show the page of an act on a row, or perform the act if it is confirmed."""
        found = next((each for each in self.acts if each.name == act), None)
        if found is None:
            raise Http404
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            if repeated := respond_again(request, self):  # the same form was sent before, and may have deleted the row
                return repeated
            raise Http404
        back = next_of(request) or (list_url(self.model) if found.removes else row_url(row))
        return self._perform(request, found, [row], back)

    def _perform(self, request: HttpRequest, act: Act, rows: list[Model], back: str, **context: Any) -> HttpResponse:
        shown = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "model_admin": self,
            "original": rows[0] if len(rows) == 1 else None,
            "title": act.label,
            "goes": [(row, self.rows_deleted_with(request, row)) for row in rows if act.removes and _is_parent(row)],
            **context,
        }
        return perform(request, act, rows, tenant_of=self.tenant_of, context=shown, back=back)

    def __init__(self, model: type[Model], admin_site: Any) -> None:
        super().__init__(model, admin_site)
        self.actions = [_bulk(act) for act in self.acts if not act.removes and act.form is None]

    def get_actions(
        self, request: HttpRequest, action_location: ActionLocation = ActionLocation.CHANGE_LIST
    ) -> dict[str, Any]:
        """Return the bulk actions of a list, except those whose permission the person does not have in any tenant."""
        if action_location is not ActionLocation.CHANGE_LIST:
            return {}
        console_user = console_user_of(request)
        permitted = {act.name for act in self.acts if act.needs is None or console_user.holds_anywhere(act.needs)}
        actions = super().get_actions(request, action_location=action_location)
        return {name: action for name, action in actions.items() if name in permitted}

    def get_action_choices(
        self,
        request: HttpRequest,
        default_choices: Any = None,
        action_location: ActionLocation = ActionLocation.CHANGE_LIST,
    ) -> Any:
        """Return Django's choices, because the theme's method lacks the parameter ``action_location`` of Django 6.1."""
        return admin.ModelAdmin.get_action_choices(self, request, [("", "Select action")], action_location)


def _is_parent(row: Model) -> bool:
    """Return whether the confirmation page counts the rows that are deleted with the row."""
    return isinstance(row, (Project, Environment))


def _bulk(act: Act) -> Any:
    """Return the act as an action of Django's changelist."""

    def run(model_admin: ActingAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        # The changelist's queryset contains only visible rows, even if the form names others.
        # Acts that change rows one by one take several queries for each row.
        most = model_admin.most_bulk_rows if act.run_all is not None else MAX_BULK_ROWS
        rows = list(queryset[: most + 1])
        if len(rows) > most:
            hint = model_admin.bulk_hint if act.run_all is not None else ""
            detail = f"You selected more than {most:,} rows. Select at most {most:,}. {hint}".strip()
            model_admin.message_user(request, detail, "error")
            return None
        if not rows:
            if repeated := respond_again(request, model_admin):  # the rows no longer match the list's filters
                return repeated
            model_admin.message_user(request, NOTHING_CHANGED, "info")
            return None
        every = request.POST.get("select_across") == "1"
        return model_admin._perform(request, act, rows, request.get_full_path(), bulk=True, every=every)

    run.__name__ = act.name
    run.short_description = act.label  # type: ignore[attr-defined]  # Django reads this attribute of the function
    return run
