"""Tests of query parameters, read-only fields, page cursors, and the published OpenAPI document."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from byteor_cloud.api import document
from byteor_cloud.api.parameters import read_time
from tests.worlds import World

EXTREME = ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:60-00:01"]


@pytest.mark.parametrize("moment", EXTREME)
def test_time_that_cannot_be_converted_to_utc_is_refused(moment: str) -> None:
    with pytest.raises(ValueError, match="time"):
        read_time(moment)


@pytest.mark.django_db
@pytest.mark.parametrize("moment", [*EXTREME, "2026-11-24", "2026-11-24T12:00:00", ""])
def test_invalid_parameters_are_reported_together(world: World, moment: str) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/audit-events"

    response = world.admin.api("GET", f"{path}?after={moment.replace('+', '%2B')}&outcome=&limti=5&actor_id=a%00")

    assert response.status_code == 400
    assert [(e["parameter"], e["code"]) for e in response.json()["errors"]] == [
        ("after", "invalid"), ("outcome", "invalid"), ("limti", "unknown_parameter"), ("actor_id", "invalid"),
    ]  # fmt: skip
    assert "limit" in response.json()["errors"][2]["detail"]


@pytest.mark.django_db
def test_read_only_field_is_refused_in_create_and_ignored_in_update(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/projects"

    refused = world.admin.api.post(path, {"name": "billing", "id": "x"})
    project = world.admin.api.get(f"{path}/{world.project.pk}").json()
    kept = world.admin.api.put(f"{path}/{world.project.pk}", {**project, "created_at": 5})

    assert [(e["pointer"], e["code"]) for e in refused.json()["errors"]] == [("/id", "unknown_field")]
    assert (kept.status_code, kept.json()) == (200, project)


@pytest.mark.django_db
def test_next_cursor_leads_to_other_rows_and_is_null_on_last_page(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/members"
    first = world.admin.api.get(f"{path}?limit=2").json()

    following = world.admin.api("GET", f"{path}?limit=2&cursor={first['next_cursor'].replace('=', '%3D')}").json()
    last = world.admin.api.get(f"{path}?limit=200").json()

    assert not {row["id"] for row in first["results"]} & {row["id"] for row in following["results"]}
    assert last["next_cursor"] is None


def test_openapi_document_is_generated_once_for_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    generations: list[Any] = []
    get_schema = SchemaGenerator.get_schema

    def counting_get_schema(self: Any, *args: Any, **kwargs: Any) -> Any:
        generations.append(args)
        return get_schema(self, *args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(SchemaGenerator, "get_schema", counting_get_schema)
    monkeypatch.setattr(document, "_made", {})
    calls = [
        ("/api/schema", ""), ("/api/schema?format=json", ""), ("/api/schema?format=yaml", ""), ("/api/docs", ""),
        ("/api/schema", "application/json"), ("/api/schema", "image/png"), ("/api/schema?lang=de", ""),
        ("/api/redoc", ""),
        ("/api/schema?version=v2", ""), ("/api/schema?x=1", "application/vnd.oai.openapi"), ("/api/docs?script=", ""),
    ]  # fmt: skip

    def get_status(call: tuple[str, str]) -> int:
        return Client().get(call[0], headers={"Accept": call[1]} if call[1] else {}).status_code

    with ThreadPoolExecutor(4) as callers:
        statuses = list(callers.map(get_status, calls * 2))

    assert statuses == [200] * len(statuses)
    assert len(generations) == 1


def test_openapi_document_returns_304_when_etag_matches(client: Client) -> None:
    first = client.get("/api/schema?format=json")

    again = client.get("/api/schema?format=json", headers={"If-None-Match": first["ETag"]})
    other = client.get("/api/schema", headers={"If-None-Match": first["ETag"]})
    unknown = client.get("/api/schema?format=xml")

    assert first["Content-Type"].startswith("application/vnd.oai.openapi+json")
    assert "max-age" in first["Cache-Control"]
    assert (again.status_code, again.content) == (304, b"")
    assert (other.status_code, unknown.status_code) == (200, 400)
