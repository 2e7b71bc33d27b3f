"""Tests of pagination: completeness while rows are inserted, page sizes, cursors and page links."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from apps.tenancy.models import Project
from byteor_cloud.config import Config
from tests.worlds import World

pytestmark = pytest.mark.django_db


def grow(world: World, count: int, tag: str) -> list[str]:
    """Create ``count`` projects and return their ids, oldest first."""
    projects = [Project(organization=world.organization, name=f"{tag} {i}", slug=f"{tag}-{i}") for i in range(count)]
    return [str(project.pk) for project in Project.objects.bulk_create(projects)]


def follow(world: World, link: str) -> Any:
    parts = urlsplit(link)
    return world.viewer.api.get(f"{parts.path}?{parts.query}").json()


def test_pages_contain_existing_rows_once_while_rows_are_inserted(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/projects"
    rows = [str(world.project.pk), *grow(world, 119, "old")][::-1]
    page = world.viewer.api.get(path + "?limit=25").json()
    assert page["previous"] is None
    seen = [row["id"] for row in page["results"]]
    sizes = [len(page["results"])]
    inserted: list[str] = []
    while page["next"] is not None:
        inserted += grow(world, 3, f"new{len(sizes)}")
        page = follow(world, page["next"])
        seen += [row["id"] for row in page["results"]]
        sizes.append(len(page["results"]))

    assert seen == rows
    assert sizes == [25, 25, 25, 25, 20]

    back: list[str] = []
    while page["previous"] is not None:
        inserted += grow(world, 2, f"late{len(back)}")
        page = follow(world, page["previous"])
        back = [row["id"] for row in page["results"]] + back

    assert back == [*inserted[::-1], *rows[:100]]
    assert page["results"][0]["id"] == inserted[-1]


@pytest.mark.parametrize(("query", "count"), [("", 50), ("?limit=1", 1), ("?limit=200", 200)])
def test_limit_parameter_sets_page_size_which_is_50_by_default(world: World, query: str, count: int) -> None:
    grow(world, 220, "p")

    page = world.viewer.api.get(f"/api/v1/orgs/{world.organization.pk}/projects{query}").json()

    assert len(page["results"]) == count


def test_page_links_keep_filters(world: World) -> None:
    grow(world, 5, "red")
    grow(world, 5, "blue")
    page = world.viewer.api.get(f"/api/v1/orgs/{world.organization.pk}/projects?limit=2&name=red").json()

    assert parse_qs(urlsplit(page["next"]).query)["name"] == ["red"]
    assert [row["name"] for row in follow(world, page["next"])["results"]] == ["red 2", "red 1"]


def test_cursor_of_another_tenant_reveals_none_of_that_tenants_rows(world: World, other: World) -> None:
    grow(world, 3, "p")
    link = world.viewer.api.get(f"/api/v1/orgs/{world.organization.pk}/projects?limit=1").json()["next"]

    page = other.viewer.api.get(f"/api/v1/orgs/{other.organization.pk}/projects?{urlsplit(link).query}").json()

    assert {row["organization_id"] for row in page["results"]} <= {str(other.organization.pk)}


def test_page_links_start_with_public_base_url(world: World, settings: Any) -> None:
    config = {name: getattr(settings.CONFIG, name) for name in Config.__dataclass_fields__}
    settings.CONFIG = Config(**{**config, "public_base_url": "https://cloud.example.com"})
    grow(world, 3, "p")

    page = world.viewer.api.get(f"/api/v1/orgs/{world.organization.pk}/projects?limit=1").json()

    assert page["next"].startswith(f"https://cloud.example.com/api/v1/orgs/{world.organization.pk}/projects?")
