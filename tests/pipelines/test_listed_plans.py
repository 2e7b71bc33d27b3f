"""Tests of lists of drafts, which show only plans of at most 4 KiB and measure only the plans on the page."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from django.db import connection

from apps.pipelines.models import Draft
from byteor_cloud.database.large_columns import with_small_values, without_large
from tests.worlds import World

pytestmark = pytest.mark.django_db


def _draft(world: World, name: str, plan: dict[str, Any]) -> Draft:
    draft: Draft = Draft.objects.create(environment=world.dev, name=name, plan=plan, created_by="x", updated_by="x")
    return draft


def _padded(size: int) -> dict[str, Any]:
    """Return an object whose JSON has this many bytes as PostgreSQL writes it."""
    plan = {"pad": "x" * (size - len('{"pad": ""}'))}
    assert len(json.dumps(plan)) == size
    return plan


def test_draft_list_omits_plans_over_4_kib_of_json_text(world: World) -> None:
    digits = {"pad": [Random(1).randrange(10) for _ in range(1_300)]}  # 3.8 KiB of text, 15 KiB in the database
    assert len(json.dumps(digits)) < 4096
    plans = {
        "smallest": {},
        "at the limit": _padded(4096),
        "over the limit": _padded(4097),
        "compressed to less than the limit": _padded(100_000),
        "incompressible": {"pad": Random(2).randbytes(50_000).hex()},
        "longer in the database": digits,
    }
    ids = {name: str(_draft(world, name, plan).pk) for name, plan in plans.items()}

    listed = world.viewer.api.get(world.path(rest="/drafts")).json()["results"]
    whole = {name: world.viewer.api.get(world.path(rest=f"/drafts/{pk}")).json()["plan"] for name, pk in ids.items()}

    large = {"over the limit", "compressed to less than the limit", "incompressible"}
    assert {row["name"]: row["plan"] for row in listed} == plans | dict.fromkeys(large)
    assert whole == plans


def test_database_measures_only_plans_on_listed_page(world: World) -> None:
    _draft(world, "one", {})
    page = with_small_values(without_large(Draft.objects.filter(environment=world.dev)), {"plan"}).order_by("name")[:50]

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_indexscan = off")
    plan = json.loads(page.explain(format="json", verbose=True))[0]["Plan"]

    below = plan["Plans"][0]
    while below["Node Type"] != "Sort":
        below = below["Plans"][0]
    assert "octet_length" in json.dumps(plan["Output"])
    assert "octet_length" not in json.dumps(below)
