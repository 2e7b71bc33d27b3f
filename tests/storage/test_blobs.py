"""Tests of the blob store: unreachable storage, blobs that are deleted immediately, and files received for a bucket."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from byteor_cloud.errors import Unavailable
from byteor_cloud.storage import blobs
from byteor_cloud.storage.file_storage import AtomicFileStorage

HASH = "sha256:" + "0" * 64


S3 = {
    "BACKEND": "byteor_cloud.storage.object_storage.ObjectStorage",
    "OPTIONS": {"bucket": "artifacts", "endpoint_url": "http://127.0.0.1:1", "region": "us-east-1"},
}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.mark.parametrize(
    "use",
    [
        lambda: blobs.put(HASH, b"x"),
        lambda: blobs.put_file(HASH, ContentFile(b"x")),
        lambda: blobs.read(HASH),
    ],
    ids=["put", "put_file", "read"],
)
def test_unreachable_storage_raises_unavailable(use: Callable[[], object], settings: Any) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": S3}

    with pytest.raises(Unavailable) as raised:
        use()

    assert raised.value.retry_after == 10
    assert "127.0.0.1" not in raised.value.detail


def test_put_succeeds_even_if_blob_is_deleted_immediately_after_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that need the blob call ``protect`` and then check ``is_stored``."""
    content_hash = "sha256:" + "5" * 64
    save = AtomicFileStorage.save

    def save_and_delete(storage: AtomicFileStorage, *args: Any, **kwargs: Any) -> str:
        name = save(storage, *args, **kwargs)
        storage.delete(name)
        return name

    monkeypatch.setattr(AtomicFileStorage, "save", save_and_delete)

    blobs.put(content_hash, b"gone")

    assert not blobs.is_stored(content_hash)


def test_file_for_bucket_is_received_in_upload_folder(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": S3}
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")
    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("a file for a bucket need not be durable on this disk"))

    with blobs.receive("a") as file:
        file.append(b"by")
        file.append(b"tes")
        file.make_durable()

        assert [path.read_bytes() for path in (tmp_path / "uploads").iterdir()] == [b"bytes"]
        assert (b"".join(file.chunks()), file.size) == (b"bytes", 5)
        assert file.content_hash == "sha256:" + hashlib.sha256(b"bytes").hexdigest()
        with pytest.raises(Unavailable):
            blobs.put_file(file.content_hash, file)

    assert list((tmp_path / "uploads").iterdir()) == []
