"""Lists omit large values, and their queries read none except the settings of their organization and environment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.large_values import LARGE, SHORT, SIZE, enlarge, large_columns_in, long_columns
from tests.laws.calls import CALLS, Operation, operation, operations, path_of, permitted_caller
from tests.laws.tenants import Tenants
from tests.resources import E, O, P
from tests.results import results

pytestmark = pytest.mark.django_db
LISTS = [each for each in operations() if each.action == "list"]
LARGEST_PAGE = 64 * 1024


def rows(each: Operation, tenants: Tenants) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a list, and the size of its response."""
    response = permitted_caller(each, tenants).get(path_of(each, tenants, tenants.home.ids()))
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()["results"]
    return found, len(response.content)


def single(each: Operation, row: dict[str, Any], tenants: Tenants) -> Any:
    """Return the response that contains one row in full, or None if no operation returns it."""
    path = {"/api/v1/orgs": O, P + "/environments": E}.get(each.path, each.path + "/{id}")
    if ("GET", path) not in CALLS:
        return None
    segment = each.path.rpartition("/")[2]
    name = {O: "org_id", E: "env_id"}.get(path, segment)
    return permitted_caller(each, tenants).get(
        path_of(operation("GET", path), tenants, {**tenants.home.ids(), name: row["id"]})
    )


def test_every_column_without_maximum_length_is_declared_large_or_short() -> None:
    assert LARGE.isdisjoint(SHORT)
    assert long_columns().keys() == LARGE | SHORT


def test_lists_show_small_values_and_omit_large_ones(tenants: Tenants) -> None:
    shown: dict[Operation, set[str]] = {}
    for each in LISTS:
        small, fields = rows(each, tenants)[0], each.call.null
        shown[each] = {name for row in small for name, value in row.items() if value is not None}
        for row in small[:3] if fields else ():
            whole = single(each, row, tenants)
            assert whole is None or {name: row[name] for name in fields} == {
                name: whole.json()[name] for name in fields
            }
            assert whole is not None or None not in [row[name] for name in fields]

    enlarge()

    for each in LISTS:
        with results() as noted:
            listed, size = rows(each, tenants)
        assert (each, large_columns_in(noted)) == (each, set())
        assert listed
        assert size < LARGEST_PAGE
        null = {name for name in listed[0] if all(row[name] is None for row in listed)}
        assert null & shown[each] <= each.call.null <= null, each
        if each.call.is_free:
            assert len(single(each, listed[0], tenants).content) > SIZE * len(each.call.null)
