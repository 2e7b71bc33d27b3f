"""Queries that are compiled once and run with other values."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.tenancy.models import Environment, Organization
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.ids import uuid7
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_each_call_finds_the_rows_of_its_values(world: World) -> None:
    query = CompiledQuery[Environment](
        lambda project, name: Environment.objects.select_related("project").filter(project_id=project, name=name),
        UUID,
        str,
    )

    assert query.first(world.project.pk, "dev") == world.dev
    assert query.first(world.project.pk, "prod") == world.prod
    assert query.first(uuid7(), "dev") is None
    assert query.rows(world.project.pk, "'; --%s\x01value 1") == []


def test_a_row_is_complete_and_needs_one_query(world: World) -> None:
    query = CompiledQuery[Environment](
        lambda pk: Environment.objects.select_related("project__organization").filter(pk=pk), UUID
    )

    with CaptureQueriesContext(connection) as queries:
        found = query.first(world.dev.pk)
        assert found is not None
        assert vars(found.project.organization)["name"] == world.organization.name
        assert found.settings == world.dev.settings

    assert len(queries) == 1
    assert found.created_at == world.dev.created_at


def test_a_value_that_the_query_does_not_use_is_refused() -> None:
    query = CompiledQuery[Organization](lambda pk, name: Organization.objects.filter(pk=pk), UUID, str)

    with pytest.raises(TypeError, match="each of its values"):
        query.first(uuid7(), "acme")


def test_a_query_with_the_time_in_it_is_refused() -> None:
    query = CompiledQuery[Organization](
        lambda pk: Organization.objects.filter(pk=pk, created_at__lt=timezone.now()), UUID
    )

    with pytest.raises(TypeError, match="time of the first call"):
        query.first(uuid7())


def test_values_may_be_left_out_and_no_row_may_be_possible() -> None:
    ignoring = CompiledQuery[Organization](lambda *_: Organization.objects.none(), UUID, str, uses_all=False)

    assert ignoring.rows(uuid7(), "x") == []
    assert ignoring.tuples(uuid7(), "x") == []


def test_tuples_are_the_columns_of_the_rows(world: World) -> None:
    query = CompiledQuery[Environment](
        lambda project: Environment.objects.filter(project_id=project).order_by("name").values_list("name", "pk"), UUID
    )

    assert query.tuples(world.project.pk)[0] == ("dev", world.dev.pk)
