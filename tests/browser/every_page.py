"""Every page of the console that a person can reach: lists, searches, filters, pages of rows, forms of acts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.test import Client
from django.urls import reverse

from apps.pipelines.models import Draft, Version
from apps.releases.models import ConfigBundle
from apps.tenancy.console import site
from apps.tenancy.models import Environment
from tests.browser.filled import MODELS, row_page, table

# A word that is in no row, and one that is in many.
SEARCHES = ("nowhere", "bench")


def walk(client: Client, rows_of: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the URL of each page. ``rows_of`` returns the row of a model whose page is walked, or None."""
    yield "overview", reverse("admin:index")
    for label, model in MODELS.items():
        listed = client.get(table(model))
        if listed.status_code != 200:
            continue
        changelist = listed.context["cl"]
        yield f"{label} list", table(model)
        for word in SEARCHES:
            yield f"{label} search {word}", f"{table(model)}?q={word}"
        for spec in changelist.filter_specs:
            for choice in list(spec.choices(changelist))[:12]:
                if len(choice["query_string"]) > 1:
                    yield f"{label} filter {choice['query_string']}", table(model) + choice["query_string"]
        for number, name in enumerate(site._registry[model].get_list_display(listed.wsgi_request), 1):
            if changelist.get_ordering_field(name) is not None:
                yield f"{label} sorted by column {number}", f"{table(model)}?o=-{number}"
        yield f"{label} second page", f"{table(model)}?p=2"
        if changelist.paginator.num_pages > 2:
            yield f"{label} last page", f"{table(model)}?p={changelist.paginator.num_pages}"
        row = rows_of(model)
        if row is None:
            continue
        yield f"{label} row", row_page(row)
        page = client.get(row_page(row))
        for act in page.context["acts"]:
            yield f"{label} form {act['path'].rstrip('/').rpartition('/')[2]}", act["path"]
        for _, url in re.findall(r"(\w+)-live|data-live=\"([^\"]+)\"", page.text):
            yield f"{label} live", url
        yield from _more(row)


def _more(row: Any) -> Iterator[tuple[str, str]]:
    match row:
        case Environment():
            yield "choose a config bundle", reverse("admin:releases_configbundle_choose", args=[row.pk])
        case ConfigBundle():
            yield "deploy", reverse("admin:releases_configbundle_deploy", args=[row.pk])
        case Version():
            yield "new config bundle", reverse("admin:releases_configbundle_new", args=[row.pk])
            yield "compare versions", reverse("admin:pipelines_version_compare", args=[row.pk])
        case Draft():
            yield "new draft", reverse("admin:pipelines_draft_new")
            yield "editor", reverse("admin:pipelines_draft_edit", args=[row.pk])
