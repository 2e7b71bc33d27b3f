"""Lists, searches and the overview of the console read no large columns. ``test_tables.py`` checks row pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.urls import reverse

from apps.tenancy.models import Environment
from tests.browser.filled import MODELS, add_siblings, fill, signed_in, superuser, table
from tests.large_values import SIZE, enlarge, large_columns_in
from tests.results import results
from tests.worlds import World

pytestmark = pytest.mark.django_db


def _pages(environment: Environment) -> Iterator[str]:
    for model in MODELS.values():
        yield table(model)
        yield f"{table(model)}?in={environment.pk}&q=acme"
    yield f"{reverse('admin:index')}?in=all"
    yield f"{reverse('admin:index')}?in={environment.pk}"
    for text in ("acme", "bundle", "sha256:1111"):
        yield f"{reverse('admin:search')}?s={text}"


def test_lists_searches_and_overview_read_no_large_columns(world: World) -> None:
    made = fill(world)
    add_siblings(world, made)
    enlarge()
    client, read = signed_in(superuser()), {}

    for url in _pages(made.deployment.environment):
        with results() as noted:
            page = client.get(url)
        assert page.status_code == 200
        assert len(page.content) < SIZE
        read[url] = large_columns_in(noted)

    assert {url: columns for url, columns in read.items() if columns} == {}
