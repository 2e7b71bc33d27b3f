"""Tests of queries that are compiled once and run with different values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.postgres.fields import ArrayField
from django.db import connection
from django.db.models import (
    BinaryField,
    Case,
    Exists,
    JSONField,
    OuterRef,
    Q,
    QuerySet,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.tenancy.models import Environment, Organization, Project
from apps.tenancy.policy import Posture
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.ids import uuid7
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_compiled_query_returns_rows_for_values_of_each_call(world: World) -> None:
    query = CompiledQuery[Environment](
        lambda project, name: Environment.objects.select_related("project").filter(project_id=project, name=name),
        UUID,
        str,
    )

    assert query.first(world.project.pk, "dev") == world.dev
    assert query.first(world.project.pk, "prod") == world.prod
    assert query.first(uuid7(), "dev") is None
    assert query.rows(world.project.pk, "'; --%s\x01value 1") == []


def test_row_and_its_related_rows_are_loaded_by_one_query(world: World) -> None:
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


def test_query_that_ignores_one_of_its_values_is_refused_by_default() -> None:
    query = CompiledQuery[Organization](lambda pk, name: Organization.objects.filter(pk=pk), UUID, str)

    with pytest.raises(TypeError, match="each of its values"):
        query.first(uuid7(), "acme")


SOMEBODY = uuid7()
NOW = timezone.now()
HASH = f"sha256:{'0' * 64}"
_ALL = Organization.objects.all()
KEPT: dict[str, Callable[[Any, Any], QuerySet[Any]]] = {
    # Each key describes a value that the query would keep from the first call. Each function builds the query.
    "time": lambda pk, name: _ALL.filter(created_at__lt=NOW),
    "date": lambda pk, name: _ALL.filter(created_at__date=NOW.date()),
    "time of day": lambda pk, name: _ALL.filter(created_at__time=NOW.time()),
    "derived time": lambda pk, name: _ALL.annotate(seen=Value(NOW - timedelta(days=1))),
    "id": lambda pk, name: _ALL.exclude(pk=SOMEBODY),
    "one of several ids": lambda pk, name: _ALL.filter(pk__in=[pk, SOMEBODY]),
    "ids in one parameter": lambda pk, name: _ALL.filter(pk__in=RawSQL("SELECT unnest(%s::uuid[])", [[SOMEBODY]])),
    "id as text": lambda pk, name: _ALL.filter(slug=str(SOMEBODY)),
    "id in the SQL": lambda pk, name: _ALL.annotate(x=RawSQL(f"SELECT '{SOMEBODY}'::uuid", [])),
    "hexadecimal id in the SQL": lambda pk, name: _ALL.annotate(x=RawSQL(f"SELECT '{SOMEBODY.hex}'::uuid", [])),
    "time in the SQL": lambda pk, name: _ALL.annotate(x=RawSQL(f"SELECT '{NOW}'::timestamptz", [])),
    "text": lambda pk, name: _ALL.filter(name="Acme Corp."),
    "e-mail address": lambda pk, name: _ALL.filter(name="ada@example.com"),
    "hash": lambda pk, name: _ALL.filter(slug=HASH),
    "one of several texts": lambda pk, name: _ALL.filter(name__in=[name, "acme-2"]),
    "long word": lambda pk, name: _ALL.filter(name="a" * 41),
    "part of a text": lambda pk, name: _ALL.filter(name__contains=name),
    "text with a value": lambda pk, name: _ALL.annotate(x=Value(f"of {name}")),
    "value in upper case": lambda pk, name: _ALL.filter(slug=name.upper()),
    "large number": lambda pk, name: _ALL.filter(revision=100),
    "large negative number": lambda pk, name: _ALL.annotate(x=Value(-100)),
    "fraction": lambda pk, name: _ALL.annotate(x=Value(0.5)),
    "decimal number": lambda pk, name: _ALL.annotate(x=Value(Decimal(1))),
    "bytes": lambda pk, name: _ALL.annotate(x=Value(b"a", BinaryField())),
    "JSON": lambda pk, name: _ALL.filter(settings__contains={"a": "b"}),
    "JSON with a value": lambda pk, name: _ALL.filter(settings__contains={"a": name}),
    "JSON of an annotation": lambda pk, name: _ALL.annotate(x=Value({"a": 1}, JSONField())),
    "id in a subquery": lambda pk, name: _ALL.filter(pk__in=Project.objects.filter(pk=SOMEBODY).values("organization")),
    "id in a condition": lambda pk, name: _ALL.annotate(x=Case(When(pk=SOMEBODY, then=True), default=False)),
    "id in a subquery of an annotation": lambda pk, name: _ALL.annotate(
        x=Exists(Project.objects.filter(organization=OuterRef("pk"), environments__pk=SOMEBODY))
    ),
    "id of a joined row": lambda pk, name: _ALL.filter(Q(projects__pk=SOMEBODY) | Q(name="a")),
    "id in the order": lambda pk, name: _ALL.order_by(Case(When(pk=SOMEBODY, then=0), default=1)),
    "id in a union": lambda pk, name: _ALL.union(_ALL.filter(pk=SOMEBODY)),
}


@pytest.mark.parametrize("case", KEPT)
def test_query_that_could_reuse_values_of_first_call_is_refused(case: str) -> None:
    query = CompiledQuery[Organization](KEPT[case], UUID, str, uses_all=False)

    with pytest.raises(TypeError, match="value of the first call"):
        query.rows(uuid7(), "acme")


def test_query_may_contain_short_words_small_numbers_and_intervals_as_constants(world: World) -> None:
    query = CompiledQuery[Environment](
        lambda project: Environment.objects.filter(project_id=project, posture__in=[Posture.DEV, "prod"]).annotate(
            is_named=Value(True),
            rank=Case(When(name="", then=Value(99)), default=Value(-1)),
            soon=Now() + Value(timedelta(hours=1)),
            words=Value(["a_b", "c"], ArrayField(TextField())),
            nothing=Value(None, TextField()),
        ),
        UUID,
    )

    assert {row.pk for row in query.rows(world.project.pk)} == {world.dev.pk, world.prod.pk}


def test_query_that_can_match_no_row_returns_empty_list() -> None:
    ignoring = CompiledQuery[Organization](lambda *_: Organization.objects.none(), UUID, str, uses_all=False)

    assert ignoring.rows(uuid7(), "x") == []
    assert ignoring.tuples(uuid7(), "x") == []


def test_tuples_contain_selected_columns_of_rows(world: World) -> None:
    query = CompiledQuery[Environment](
        lambda project: Environment.objects.filter(project_id=project).order_by("name").values_list("name", "pk"), UUID
    )

    assert query.tuples(world.project.pk)[0] == ("dev", world.dev.pk)
