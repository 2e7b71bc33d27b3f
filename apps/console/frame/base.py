"""The base of every admin class in the console: read-only, without secrets, and limited to rows the person may see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, NoReturn, final
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db.models import BinaryField, Field, ForeignKey, Model, Q, QuerySet, UUIDField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import escape
from django.utils.safestring import mark_safe
from django.utils.text import capfirst
from unfold.admin import ModelAdmin, checkbox
from unfold.views import ChangeList

from apps.console.frame.acting import ActingAdmin
from apps.console.frame.columns import FIELD_TITLES, admin_column, list_url
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.large import BoundedPaginator, count_each, note, search
from apps.console.frame.personal import plan_counts_below, visible_row
from apps.console.frame.scope import (
    SCOPE,
    granted_condition,
    list_scope_of,
    live_tenant_condition,
    scope_condition,
    set_scope,
    with_scope,
)
from apps.tenancy.models import Tenant
from apps.tenancy.permissions import Permission
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.database.connections import pause_between_rows
from byteor_cloud.database.large_columns import with_small_values, without_large
from byteor_cloud.database.together import Plan, run

# Columns that nobody may see, or use to search, filter or sort.
SECRETS = frozenset({"digest", "private_key", "response", "fingerprint", "secret", "previous_secret"})


LIVE_PARTS = "live_parts"  # a context key, present if the request is for the changing parts of a page only
_ANY_VALUE = "any-value"


@cache
def _checkbox() -> str:
    """Return the theme's checkbox of a row whose key is ``_ANY_VALUE``."""
    return str(checkbox.render(ACTION_CHECKBOX_NAME, _ANY_VALUE))


@dataclass(frozen=True, slots=True)
class FoundBy:
    """How the global search finds rows of a table, in addition to their ids.

    ``icon`` is the icon of the results. ``name`` is a column of a table whose rows belong to environments. It is
    searched by prefix with an index (``tenancy.models.name_index`` and ``word_indexes``). ``words`` are columns of a
    small table. The search finds the text anywhere in them. ``hashes`` are columns that are searched by prefix.

    ``acted_on`` selects the few rows on which the search offers actions, such as current deployments. Without it, the
    search offers actions only on rows of tables with ``name`` or, if the rows have a tenant, with ``words``.
    """

    icon: str
    name: str = ""
    words: Sequence[str] = ()
    hashes: Sequence[str] = ()
    acted_on: Q | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPage:
    """A page on which people perform an action that is not an ``Act``, for the global search.

    ``also`` are other words by which the search finds the action, in lower case. ``model`` is the table of the rows
    that the text names. ``find`` replaces these rows with the rows that the action needs. ``url_of`` returns the page's
    URL for a row. ``start`` returns the URL if the text names no row.
    """

    label: str
    also: str = ""
    icon: str
    needs: Permission
    model: type[Model]
    url_of: Callable[[Any], str]
    find: Callable[[QuerySet[Any]], Iterable[Any]] | None = None
    start: Callable[[], str] | None = None


class ScopedChangeList(ChangeList):  # type: ignore[misc]  # untyped library
    """A list whose URL may contain the scope. The scope is not a filter: links that reset the filters keep it."""

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        self.title = self.model_admin.menu_title()
        self.reset_url = with_scope(self.model_admin.list_url(), list_scope_of(request), explicit=True)
        tables = [self.model_admin.admin_site.get_model_admin(each) for each in self.model_admin.hint_links]
        self.hint_links = [
            (with_scope(each.list_url(), list_scope_of(request)), each.menu_title())
            for each in tables
            if each.has_view_permission(request)
        ]

    def get_filters(self, request: HttpRequest) -> Any:
        """Return the filters. A title in ``FIELD_TITLES`` replaces the name of the field, as in the columns."""
        found: Any = super().get_filters(request)
        for each in found[0]:
            if title := FIELD_TITLES.get(getattr(each, "field_path", "")):
                each.title = title.lower()
        return found

    def get_queryset(self, request: HttpRequest, *args: Any) -> QuerySet[Any]:
        """Return the rows of the list. Large columns contain only the values that are small enough to show."""
        rows: QuerySet[Any] = super().get_queryset(request, *args)
        return with_small_values(rows, self.model_admin.shown_columns)

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page. Other requests can run between two rows while the page is rendered."""
        super().get_results(request)
        self.result_list: Any = Pausing(self.result_list)

    @property
    def wide_columns(self) -> list[str]:
        """The columns that the list hides in a window as narrow as a phone."""
        kept = self.model_admin.narrow_columns
        return [name for name in map(str, self.model_admin.list_display[1:]) if name not in kept] if kept else []

    @property
    def search_note(self) -> str:
        """A note on the limit that the search may have reached; empty without such a limit."""
        every = self.model_admin.searches_all
        return note(self.root_queryset, self.result_count, every=every) if self.query else ""

    def get_ordering_field(self, field_name: Any) -> Any:
        """Return the field by which a column sorts the rows; None if the column is not sortable."""
        is_free = self.sortable_by is None or getattr(field_name, "__name__", field_name) in self.sortable_by
        found = super().get_ordering_field(field_name) if is_free else None
        # A column can have the name of a relation to many rows. Sorted by it, a row could appear many times.
        return None if found in self._relations_to_many else found

    @cached_property
    def _relations_to_many(self) -> frozenset[str]:
        fields = self.lookup_opts.get_fields()
        return frozenset(each.name for each in fields if each.one_to_many or each.many_to_many)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Return the filters in the URL, without the scope."""
        found: dict[str, Any] = super().get_filters_params(params)
        found.pop(SCOPE, None)
        return found


class ReadOnlyAdmin(ActingAdmin):
    """A table in the console, and the pages of its rows."""

    needs: ClassVar[Permission] = Permission.VIEW_ENVIRONMENT
    # The menu entry to which the table belongs. The entry "Records" links to a page with tables and their ``holds``.
    section: ClassVar[str] = "Records"
    holds: ClassVar[str] = ""  # a description of the rows
    hint: ClassVar[str] = ""  # how to create the first row; shown in an empty list without search and filters
    hint_links: ClassVar[Sequence[type[Model]]] = ()  # the tables of the rows from which people create the first row
    menu: ClassVar[str | None] = None  # the table's title, if the title is not the plural noun
    # The words for one row and for several, if they differ from the model's own names.
    noun: ClassVar[str] = ""
    nouns: ClassVar[str] = ""
    # Tabs above the table. Maps the title of each tab to the query string of its filter.
    tabs: ClassVar[Mapping[str, str]] = {}
    # The columns that the list shows in a window as narrow as a phone, in addition to the first column. Empty: all.
    narrow_columns: ClassVar[Collection[str]] = ()
    # How the global search finds the table's rows. None: the search finds none of the rows.
    found_by: ClassVar[FoundBy | None] = None
    # The table's pages that the global search offers as actions, in addition to ``acts``.
    action_pages: ClassVar[Sequence[ActionPage]] = ()
    related: ClassVar[Sequence[str]] = ()  # field paths for ``select_related``
    # Field paths of JSON, text and bytes columns that methods in ``list_display`` read (``database.large_columns``).
    reads: ClassVar[Collection[str]] = ()
    # Maps each field that not everybody sees to the permission in the row's tenant that shows it.
    guarded: ClassVar[Mapping[str, Permission]] = {}
    # Fields that a row's page does not list, for example because its summary shows them.
    omitted: ClassVar[frozenset[str]] = frozenset()
    # Foreign keys to this table, as ``model.field``. A row's page does not count rows that refer to it by these keys.
    not_below: ClassVar[frozenset[str]] = frozenset()
    # Whether the page's header shows the acts. Otherwise the page's own template must show them.
    acts_in_header: ClassVar[bool] = True

    ordering: Sequence[Any] = ("-id",)
    list_per_page = 50
    paginator = BoundedPaginator
    # Whether a search of the list reads all rows, not only the first ones. For tables in which this is fast.
    searches_all: ClassVar[bool] = False
    show_full_result_count = False
    list_filter_submit = False
    list_sections = ()  # without it, the theme's templates search the class for the name, for each row of a list
    change_form_outer_before_template = "console/summary.html"
    change_form_outer_after_template = "console/below.html"

    # -- visible rows and fields ---------------------------------------------------------------------------------

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        """Keep only the rows that the person may see."""
        if self.tenant is None:
            return queryset if console_user.is_superuser else queryset.none()
        return queryset.filter(
            live_tenant_condition(self.model, self.tenant),
            granted_condition(self.model, self.tenant, self.needs, console_user),
        )

    @final
    def visible_rows(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows that the person may see in any scope.

        ``without_large`` defers some columns. Reading one of these takes another query for each row.
        """
        rows = self.narrow(super().get_queryset(request), console_user_of(request))
        return without_large(rows.select_related(*self.related or (None,)), self.shown_columns)

    @property
    def shown_columns(self) -> Collection[str]:
        """The columns of the list, and the field paths in ``reads``."""
        return {*map(str, self.list_display), *self.reads}

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        """Keep only the rows of the scope. A table without a tenant has the same rows in every scope."""
        return queryset if self.tenant is None else queryset.filter(scope_condition(self.model, self.tenant, scope))

    @final
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the visible rows; on pages that limit their rows (``list_scope_of``), only those in the scope."""
        rows, scope = self.visible_rows(request), list_scope_of(request)
        return pause_between_rows(rows if scope is None else self.in_scope(rows, scope))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a visible row, or None. The row's tenant becomes the scope of the page."""
        if from_field is None and isinstance(self.opts.pk, UUIDField):
            row = visible_row(self, console_user_of(request), object_id)
        else:
            row = super().get_object(request, object_id, from_field)
        set_scope(request, None if row is None else self.tenant_of(row))
        return row

    def _get_obj_does_not_exist_redirect(self, *args: Any) -> NoReturn:
        raise Http404  # instead of Django's redirect to the overview

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ScopedChangeList]:
        """Return the class of the table's list."""
        return ScopedChangeList

    def has_add_permission(self, *args: Any) -> bool:
        """Forbid Django's forms for adding, changing and deleting rows, which would bypass the services."""
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether any row of this table could be visible to the person."""
        console_user = console_user_of(request)
        return console_user.is_superuser or (self.tenant is not None and console_user.holds_anywhere(self.needs))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the person sees the table in the menu, on the page "Records" and in the global search."""
        return self.has_view_permission(request)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        """Return the rows that the search finds (all if the text is empty), and False, because no row occurs twice."""
        text = search_term.strip()
        every = self.searches_all
        return (search(queryset, self.search_fields, text, every=every) if text else queryset), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Forbid filters by secret and guarded fields. Prefix filters would reveal them character by character."""
        if not (SECRETS | self.guarded.keys()).isdisjoint(lookup.split("__")):
            return False
        return bool(super().lookup_allowed(lookup, value, request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields that the row's page lists for the person."""
        held = console_user_of(request).permissions(self.tenant_of(obj)) if obj is not None else frozenset()
        hidden = SECRETS | self.omitted | {name for name, needed in self.guarded.items() if needed not in held}
        return [
            admin_column(field, in_table=False)
            for field in self.model._meta.fields
            if field.name not in hidden and not isinstance(field, BinaryField)
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return all fields of the page, because Django's form must not edit any."""
        return self.get_fields(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return one fieldset with all fields, collapsed if the page has a summary."""
        fields = self.get_fields(request, obj)
        folded = type(self).summary is not ReadOnlyAdmin.summary
        return [("All fields", {"fields": fields, "classes": ["collapse"]}) if folded else (None, {"fields": fields})]

    @admin.display(description="Name")
    def title(self, row: Any) -> str:
        """Return the title of the row's page, for tables whose rows have no name."""
        return self.page_title(row)

    @admin.display(description=ModelAdmin.action_checkbox.short_description)
    def action_checkbox(self, obj: Model) -> str:
        """Return the checkbox of a row, without rendering the theme's template for each row."""
        return mark_safe(_checkbox().replace(_ANY_VALUE, escape(obj.pk)))  # noqa: S308  the key is escaped

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the table's columns, formatted by type: times relative to now, states as pills, hashes shortened."""
        fields = {field.name: field for field in self.model._meta.fields}
        return [admin_column(fields[name], in_table=True) if name in fields else name for name in self.list_display]

    def menu_title(self) -> str:
        """Return the table's title in the menu."""
        return self.menu or capfirst(self.plural)

    @property
    def singular(self) -> str:
        """The noun for one row."""
        return self.noun or str(self.model._meta.verbose_name)

    @property
    def plural(self) -> str:
        """The noun for several rows."""
        return self.nouns or str(self.model._meta.verbose_name_plural)

    def section_for(self, request: HttpRequest) -> str:
        """Return the entry of the person's menu to which the table belongs."""
        return self.section

    def section_of_page(self, request: HttpRequest) -> str:
        """Return the menu entry that is highlighted on the requested page of the table."""
        return self.section_for(request)

    def row_name(self, row: Any) -> str:
        """Return the name of a row. The default ``page_title`` puts the kind of row before it."""
        return str(row)

    def page_title(self, row: Any) -> str:
        """Return the title of a row's page. Messages use it, so it starts with the kind of row."""
        return f"{capfirst(self.singular)} {self.row_name(row)}"

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the context of ``console/summary.html``, which is shown above the fields."""
        return {}

    # -- pages --------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the table with its buttons. Raises SuspiciousOperation for a malformed key or a NUL in the query."""
        if "%00" in request.META.get("QUERY_STRING", ""):
            raise SuspiciousOperation("NUL in the query string")
        try:
            response: HttpResponse = super().changelist_view(request, extra_context)
        except ValidationError as error:  # the form contains an invalid key of a row
            raise SuspiciousOperation("malformed key") from error
        if isinstance(response, HttpResponseRedirect) and response.url == f"{request.path}?{ERROR_FLAG}=1":
            # Django's redirect lacks the scope.
            return HttpResponseRedirect(with_scope(response.url, list_scope_of(request)))
        # Set ``actions_list`` only now, because the theme would replace it in ``extra_context``.
        if isinstance(response, TemplateResponse) and (buttons := self._buttons_of_table(request)):
            response.context_data = {**(response.context_data or {}), "actions_list": buttons}
        return response

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Show a row's page: its acts, summary and fields, and the numbers of rows that refer to the row."""
        context["acts"] = self._buttons(request, obj)
        context["actions_detail"] = context["acts"] if self.acts_in_header else []
        below = self._plan_below(request, obj)
        # The parts of a page that are reloaded have no frame.
        context["below"] = run(below) if LIVE_PARTS in context else context["frame_rows"].read_with(below)
        context["summary"] = self.summary(request, obj)
        context["title"], context["subtitle"] = self.page_title(obj), None
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def _plan_below(self, request: HttpRequest, row: Model) -> Plan[list[tuple[str, int | str, str]]]:
        """Return the ``Plan`` for the title, row count and URL of each list of rows that refer to this row."""
        found, tables, scope = [], [], self.tenant_of(row)
        for model, other in self.admin_site._registry.items():
            fields = [field for field in model._meta.fields if self._is_below(model, field)]
            for field in fields if other.has_view_permission(request) else ():
                tables.append((other, field.name))
                query = f"?{field.name}__{field.target_field.name}__exact={row.pk}"
                title = other.menu_title() + (f" ({field.verbose_name})" if len(fields) > 1 else "")
                found.append((title, with_scope(other.list_url() + query, scope)))
        if isinstance(row.pk, UUID):
            counts = yield from plan_counts_below(tables, console_user_of(request), row.pk)
        else:
            counts = count_each([other.get_queryset(request).filter(**{name: row}) for other, name in tables])
        return [(title, count, url) for (title, url), count in zip(found, counts, strict=True)]

    def list_url(self) -> str:
        """Return the URL of the table."""
        return list_url(self.model)

    def _is_below(self, model: type[Model], field: Field[Any, Any]) -> bool:
        return (
            isinstance(field, ForeignKey)
            and field.related_model is self.model
            and f"{model._meta.model_name}.{field.name}" not in self.not_below
        )
