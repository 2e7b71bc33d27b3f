"""Template tags for the frame around the console's pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.db.models import Model
from unfold.templatetags.unfold_list import result_headers

from apps.console.frame import forms
from apps.console.frame.cells import render_rows
from apps.console.frame.columns import row_url
from apps.console.frame.scope import lineage, scope_of, with_scope

register = template.Library()


@register.inclusion_tag("console/list_rows.html")
def list_rows(changelist: Any) -> dict[str, Any]:
    """Render the table of a list as the theme does, but without the parts that the console does not use."""
    headers = list(result_headers(changelist))
    return {
        "cl": changelist,
        "result_headers": headers,
        "num_sorted_fields": sum(1 for each in headers if each["sortable"] and each["sorted"]),
        "rows": render_rows(changelist),
    }


@register.simple_tag(takes_context=True)
def trail(context: Any) -> list[tuple[str, str]]:
    """Return the title and URL of each page above this one, starting with the list.

    Pages of other tables, such as the page of the project, are left out, because the switcher shows the scope.
    """
    here, path = context.get("page_admin"), context["request"].path
    if here is None or path == here.list_url():
        return []
    levels: list[Any] = lineage(scope_of(context["request"]))
    if levels and isinstance(levels[-1], here.model):  # the list above an environment shows its project's environments
        levels.pop()
    found = [(here.menu_title(), with_scope(here.list_url(), levels[-1] if levels else None))]
    row = context.get("original") or context.get("object")
    if isinstance(row, here.model) and isinstance(row, Model) and path != row_url(row):
        found.append((here.page_title(row), row_url(row)))
    return found


@register.simple_tag(takes_context=True)
def scope_words(context: Any) -> str:
    """Return the names in the page's scope, for the title of the browser tab."""
    return " / ".join(str(each) for each in lineage(scope_of(context["request"])))


@register.simple_tag
def new_form_id() -> str:
    """Return the id of a form that takes effect once, even if it is sent twice."""
    return forms.new_form_id()


@register.simple_tag
def row_page(row: Model) -> str:
    """Return the URL of the row's page."""
    return row_url(row)
