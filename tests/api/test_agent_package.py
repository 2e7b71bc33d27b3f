"""Tests of the agent package that the service offers: it is complete and reproducible, and needs no credential."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import byteor
from byteor_cloud.api.agent_package import WHEEL, agent_package

URL = f"/agent/{WHEEL}"


def test_package_contains_all_modules_and_their_hashes(client: Any) -> None:
    response = client.get(URL)

    assert hashlib.sha256(response.content).hexdigest() == agent_package().sha256
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    names = set(archive.namelist())
    folder = Path(byteor.__file__).parent
    assert {f"byteor/{path.relative_to(folder)}" for path in folder.rglob("*.py")} <= names
    info = f"byteor-{byteor.__version__}.dist-info"
    record = archive.read(f"{info}/RECORD").decode().splitlines()
    assert {line.split(",")[0] for line in record} == names
    for line in record[:-1]:
        name, digest, size = line.split(",")
        data = archive.read(name)
        expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={expected}", len(data))
    assert "byteor-agent = byteor.agent.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert "Requires-Dist: cryptography" in archive.read(f"{info}/METADATA").decode()


def test_rebuilt_package_is_identical() -> None:
    first = agent_package()
    agent_package.cache_clear()

    assert agent_package() == first


def test_current_release_has_etag_other_releases_return_404_and_post_returns_405(client: Any) -> None:
    tag = client.get(URL).headers["ETag"]

    assert client.get(URL, headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/agent/byteor-0.0.1-py3-none-any.whl").status_code == 404
    assert client.post(URL).status_code == 405
