"""The cells of a list. They look like the theme's cells, but take much less time to render."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.db.models import DateField, Field, ForeignKey, TimeField
from django.utils.html import conditional_escape, escape
from django.utils.safestring import SafeString, mark_safe
from unfold.templatetags.unfold_list import LINK_CLASSES, TABLE_ACTION_CELL_CLASSES, TABLE_CELL_CLASSES
from unfold.utils import display_for_field, display_for_value

from apps.console.frame.columns import row_url

_LINK = " ".join(LINK_CLASSES)


def render_rows(changelist: Any) -> list[str]:
    """Return the cells of each row of the list as HTML. The first linked column links to the row's page."""
    columns = [_column(changelist, name, place) for place, name in enumerate(changelist.list_display)]
    linked = next((place for place, name in enumerate(changelist.list_display) if name in _links(changelist)), None)
    found: list[str] = []
    query: str | None = None
    for row in changelist.result_list:
        cells = []
        for place, (classes, text) in enumerate(columns):
            shown, tag = text(row), "td"
            if place == linked:
                url, tag = row_url(row), "th"
                if query is None:  # the query is the same for all rows
                    context = {"preserved_filters": changelist.preserved_filters, "opts": changelist.opts}
                    query = add_preserved_filters(context, url).removeprefix(url)
                shown = f'<a href="{escape(url + query)}" class="{_LINK}" >{shown}</a>'
            cells.append(f'<{tag} class="{classes}">{shown}</{tag}>')
        found.append(mark_safe("".join(cells)))  # noqa: S308  each part is escaped
    return found


def _links(changelist: Any) -> Any:
    return changelist.list_display_links or ()


def _column(changelist: Any, name: Any, place: int) -> tuple[str, Callable[[Any], str]]:
    """Return the CSS classes of a column, and a function that returns the escaped text of a row's cell."""
    key = getattr(name, "__name__", f"callable_{place}") if callable(name) else name
    if key == "action_checkbox":
        return " ".join(TABLE_ACTION_CELL_CLASSES), changelist.model_admin.action_checkbox
    classes, empty = [f"field-{key}", *TABLE_CELL_CLASSES], changelist.model_admin.get_empty_value_display()
    if not callable(name):
        fields = {field.name: field for field in changelist.opts.fields if not field.auto_created}
        if (field := fields.get(name)) is not None:
            classes += ["nowrap"] if isinstance(field, DateField | TimeField | ForeignKey) else []
            return " ".join(classes), lambda row: _field_text(row, field, empty)
        own = None if name == "__str__" else getattr(changelist.model_admin, name, None)
        name = own or partial(_attribute, name)
    shows: Callable[[Any], Any] = name
    is_boolean = getattr(name, "boolean", False)

    def text(row: Any) -> str:
        value = shows(row)
        if value and isinstance(value, SafeString):
            return value
        return conditional_escape(display_for_value(value, empty, is_boolean))

    return " ".join(classes), text


def _attribute(name: str, row: Any) -> Any:
    value = getattr(row, name)
    return value() if callable(value) else value


def _field_text(row: Any, field: Field[Any, Any], empty: str) -> str:
    value = getattr(row, field.name)
    if isinstance(field, ForeignKey):
        return conditional_escape(empty if value is None else value)
    return conditional_escape(display_for_field(value, field, empty))
