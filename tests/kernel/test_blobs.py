"""A store that does not answer is unavailable, not an internal error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config
from django.core.files.base import ContentFile

from byteor_cloud import blobs
from byteor_cloud.errors import Unavailable
from byteor_cloud.file_storage import AtomicFileStorage

HASH = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "use",
    [
        lambda: blobs.put(HASH, b"x"),
        lambda: blobs.put_file(HASH, ContentFile(b"x")),
        lambda: blobs.read(HASH),
    ],
    ids=["put", "put_file", "read"],
)
def test_an_unreachable_store_is_unavailable(use: Callable[[], object], settings: Any) -> None:
    options = {
        "bucket_name": "artifacts",
        "endpoint_url": "http://127.0.0.1:1",
        "access_key": "test",
        "secret_key": "test",
        "region_name": "us-east-1",
        "client_config": Config(connect_timeout=1, retries={"max_attempts": 0}),
    }
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options},
    }

    with pytest.raises(Unavailable) as refused:
        use()

    assert refused.value.retry_after == 10
    assert "127.0.0.1" not in refused.value.detail


def test_bytes_that_are_removed_as_soon_as_they_are_stored_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever needs them holds the removal off first, and then asks whether they are there (``keep``)."""
    content_hash = "sha256:" + "5" * 64
    save = AtomicFileStorage.save

    def save_and_lose(store: AtomicFileStorage, *args: Any, **kwargs: Any) -> str:
        saved = save(store, *args, **kwargs)
        store.delete(saved)
        return saved

    monkeypatch.setattr(AtomicFileStorage, "save", save_and_lose)

    blobs.put(content_hash, b"gone")

    assert not blobs.is_stored(content_hash)
