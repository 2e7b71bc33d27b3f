"""HTML pages and the OpenAPI document are compressed for clients that accept gzip.

API responses, downloads and metrics are not compressed.
"""

from __future__ import annotations

import gzip

import pytest
from django.test import Client

from tests.browser.filled import fill, signed_in
from tests.worlds import World

GZIP = {"accept-encoding": "gzip, deflate, br"}


@pytest.mark.django_db
def test_console_pages_are_compressed(world: World) -> None:
    client = signed_in(world.viewer.user)

    plain, compressed = client.get("/admin/"), client.get("/admin/", headers=GZIP)

    assert "Content-Encoding" not in plain
    assert compressed["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in plain["Vary"]
    assert "Accept-Encoding" in compressed["Vary"]
    assert b"<h1>" in gzip.decompress(compressed.content)
    assert int(compressed["Content-Length"]) == len(compressed.content) < len(plain.content) / 3


@pytest.mark.django_db
def test_length_of_compressed_page_is_random(world: World) -> None:
    client = signed_in(world.viewer.user)

    lengths = {len(client.get("/admin/login/", headers=GZIP, follow=True).content) for _ in range(8)}

    assert len(lengths) > 1


@pytest.mark.django_db
def test_sign_in_page_and_error_page_are_compressed(client: Client) -> None:
    for path in ("/admin/login/", "/auth/link/x", "/nowhere"):
        assert client.get(path, headers={**GZIP, "accept": "text/html"})["Content-Encoding"] == "gzip", path


@pytest.mark.django_db
def test_api_responses_downloads_and_metrics_are_not_compressed(world: World) -> None:
    made = fill(world)
    browser = signed_in(world.operator.user)

    heartbeat = made.agent_api.post(
        f"/api/v1/agents/{made.agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"}, Accept_Encoding="gzip"
    )
    listed = world.operator.api.get("/api/v1/orgs", Accept_Encoding="gzip")
    download = browser.get(f"/admin/artifacts/artifact/{made.artifact.pk}/content/", headers=GZIP)
    counts = browser.get("/admin/notifications/counts/", headers=GZIP)
    metrics = browser.get("/metrics", headers=GZIP)

    for response in (heartbeat, listed, download, counts, metrics):
        assert "Content-Encoding" not in response, response.request
        assert "Accept-Encoding" not in response.get("Vary", "")
    download.close()


def test_openapi_document_is_compressed_for_clients_that_accept_gzip(client: Client) -> None:
    plain, compressed = client.get("/api/schema"), client.get("/api/schema", headers=GZIP)

    assert "Content-Encoding" not in plain
    assert compressed["Content-Encoding"] == "gzip"
    assert compressed["Vary"] == plain["Vary"] == "Accept, Accept-Encoding"
    assert gzip.decompress(compressed.content) == plain.content
    assert compressed["ETag"] == plain["ETag"]
    assert client.get("/api/schema", headers={**GZIP, "if-none-match": compressed["ETag"]}).status_code == 304
