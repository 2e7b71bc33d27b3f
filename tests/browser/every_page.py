"""The pages of the console that a person can reach: lists, searches, filters, row pages and forms of acts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from apps.console.frame import site
from apps.fleet.models import Agent
from apps.tenancy.models import Environment, User
from tests.browser.filled import MODELS, row_page, signed_in, table
from tests.described import TABLES

# A word that matches no row, and a word that matches many rows of a large benchmark.
SEARCHES = ("nowhere", "bench")
MOST_QUERIES = 15  # the maximum for most pages of the console, however many rows there are
_CHOICES = 12  # the maximum number of choices that are visited per filter


def walk(user: User, *, lists: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the name and URL of the overview and of each list that the person may see.

    For a list with rows, also yield the page and the live parts of one row, the forms of its acts, and the additional
    pages of the table. With ``lists``, also yield searches, filters, orderings and further pages of the lists.
    """
    client = signed_in(user)
    yield "overview", reverse("admin:index")
    for label, model in MODELS.items():
        listed = client.get(table(model))
        if listed.status_code != 200:
            continue
        changelist = listed.context["cl"]
        yield f"{label} list", table(model)
        if lists:
            yield from _lists(label, changelist, listed.wsgi_request)
        row = _largest(model, changelist.root_queryset)
        if row is None:
            continue
        yield f"{label} row", row_page(row)
        page = client.get(row_page(row))
        for act in page.context["acts"]:
            yield f"{label} form {act['path'].rstrip('/').rpartition('/')[2]}", act["path"]
        yield from ((f"{label} live part", url) for url in re.findall(r'data-live="([^"]+)"', page.text))
        yield from more(row)


def _lists(label: str, changelist: Any, request: HttpRequest) -> Iterator[tuple[str, str]]:
    url = table(changelist.model)
    for word in SEARCHES:
        yield f"{label} search {word}", f"{url}?q={word}"
    for spec in changelist.filter_specs:
        for choice in list(spec.choices(changelist))[:_CHOICES]:
            if len(choice["query_string"]) > 1:
                yield f"{label} filter {choice['query_string']}", url + choice["query_string"]
    for number, name in enumerate(changelist.model_admin.get_list_display(request), 1):
        if name != "action_checkbox" and changelist.get_ordering_field(name) is not None:
            yield f"{label} sorted by column {number}", f"{url}?o=-{number}"
    pages = changelist.paginator.num_pages
    yield from ((f"{label} page {number}", f"{url}?p={number}") for number in {2, pages} if 1 < number <= pages)


def _largest(model: Any, rows: Any) -> Any:
    """Return the first row, or None. For environments, return the first one with agents, because its page is larger."""
    if model is Environment:
        rows = rows.filter(pk__in=Agent.objects.values("environment"))
    return rows.order_by(*site._registry[model].ordering).first()


def more(row: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and URL of each additional HTML page of the row's table, without the pages of acts."""
    label = row._meta.label_lower
    for name, page in TABLES[label].pages.items():
        if "GET" in page.methods and not page.is_file:
            yield f"{label} {name}", reverse(f"admin:{name}", args=[row.pk] if page.of_row else []) + page.query
