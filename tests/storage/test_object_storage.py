"""Tests of blobs in a bucket: missing objects, and stores that are silent, slow, overloaded or broken."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.storage import blobs, object_storage
from tests.object_store import BUCKET, REGION, ObjectStore, object_store
from tests.patience import PATIENCE_S

__all__ = ["object_store"]

LARGE = os.urandom(3 << 20)


def hash_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


HASH = hash_of(LARGE)


def use_bucket(settings: Any, endpoint: str, bucket: str = BUCKET) -> None:
    options = {"bucket": bucket, "endpoint_url": endpoint, "region": REGION}
    default = {"BACKEND": "byteor_cloud.storage.object_storage.ObjectStorage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": default}


@pytest.fixture
def uploads(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """Configure a missing folder for temporary files. Check that no file remains in it."""
    folder = tmp_path / "data" / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR = str(folder)
    yield folder
    assert not folder.is_dir() or list(folder.iterdir()) == []


@pytest.fixture
def bucket(object_store: ObjectStore, settings: Any, uploads: Path) -> Any:
    use_bucket(settings, object_store.endpoint)
    return object_store.bucket


def test_large_blob_is_read_without_existing_uploads_folder(bucket: Any, uploads: Path) -> None:
    blobs.put(HASH, LARGE)
    assert not uploads.exists()

    for _ in range(2):
        with blobs.read(HASH) as stored:
            assert (stored.read(5), stored.read()) == (LARGE[:5], LARGE[5:])
        assert uploads.stat().st_mode & 0o777 == 0o700
        uploads.rmdir()  # somebody deletes the folder


def test_error_names_folder_that_cannot_be_created(bucket: Any, uploads: Path) -> None:
    blobs.put(HASH, LARGE)
    uploads.parent.mkdir()
    uploads.write_text("in the way")

    with pytest.raises(Unavailable, match="its folder uploads for temporary files: File exists"):
        blobs.read(HASH)


def test_missing_blob_raises_not_stored_and_missing_bucket_raises_unavailable(
    bucket: Any, object_store: ObjectStore, settings: Any
) -> None:
    unknown = hash_of(b"unknown")
    for use in (blobs.read, blobs.stored_at, blobs.check_readable):
        with pytest.raises(NotStored):
            use(unknown)
    assert not blobs.is_stored(unknown)

    use_bucket(settings, object_store.endpoint, bucket="another-bucket")
    for use in (blobs.read, blobs.check_readable):
        with pytest.raises(Unavailable):
            use(unknown)


def test_blobs_are_listed_and_deleted(bucket: Any) -> None:
    content = b"small"
    content_hash = hash_of(content)
    folder = int(content_hash[7:9], 16)
    assert content_hash not in blobs.list_stored(folder)

    blobs.put_file(content_hash, ContentFile(content))
    blobs.put(content_hash, content)  # the content is stored already

    assert blobs.list_stored(folder) == [content_hash]
    assert blobs.is_stored(content_hash)
    assert abs(blobs.stored_at(content_hash) - datetime.now(UTC)) < timedelta(days=1)
    with blobs.read(content_hash) as stored:
        assert stored.read() == content
    blobs.delete(content_hash)
    assert not blobs.is_stored(content_hash)


# -- broken stores


class Trouble:
    """An HTTP server that handles each request with ``respond``, and counts the requests."""

    def __init__(self, respond: Callable[[BaseHTTPRequestHandler, int], None]) -> None:
        trouble = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                trouble.requests += 1
                respond(self, trouble.requests)

            do_PUT = do_HEAD = do_GET

            def log_message(self, *args: object) -> None:
                """Do not log requests."""

        self.requests = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


type InTrouble = Callable[[Callable[[BaseHTTPRequestHandler, int], None]], Trouble]


@pytest.fixture
def in_trouble(settings: Any, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InTrouble]:
    """Yield a function that starts a ``Trouble`` server and uses it as the blob store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    started = []

    def start(respond: Callable[[BaseHTTPRequestHandler, int], None]) -> Trouble:
        started.append(Trouble(respond))
        use_bucket(settings, started[-1].endpoint)
        return started[-1]

    yield start
    for each in started:
        each.server.shutdown()
        each.server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, length: int) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def test_timeouts_of_request_to_silent_store_total_less_than_ten_seconds() -> None:
    """The client waits a second for the store's "100 Continue" before it sends a body."""
    assert object_storage.QUICK_S + object_storage.CONNECT_S + 1 + object_storage.SILENCE_S < 10


@pytest.mark.parametrize(
    "use",
    [blobs.read, blobs.is_stored, lambda content_hash: blobs.put_file(content_hash, ContentFile(LARGE))],
    ids=["read", "is_stored", "put_file"],
)
def test_request_to_silent_store_is_not_retried(
    in_trouble: InTrouble, monkeypatch: pytest.MonkeyPatch, use: Callable[[str], object]
) -> None:
    monkeypatch.setattr(object_storage, "SILENCE_S", 0.6)
    monkeypatch.setattr(object_storage, "CONNECT_S", 0.6)
    over = threading.Event()

    def say_nothing(handler: BaseHTTPRequestHandler, number: int) -> None:
        over.wait(PATIENCE_S)

    trouble = in_trouble(say_nothing)

    with pytest.raises(Unavailable):
        use(HASH)

    assert trouble.requests == 1
    over.set()


def test_interrupted_download_is_treated_as_outage_and_leaves_no_file(
    in_trouble: InTrouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "SILENCE_S", 0.3)
    over = threading.Event()

    def stop_half_way(handler: BaseHTTPRequestHandler, number: int) -> None:
        send(handler, 200, len(LARGE))
        handler.wfile.write(LARGE[: len(LARGE) // 2])
        if number == 1:
            over.wait(PATIENCE_S)  # after half of the second download, the server closes the connection

    in_trouble(stop_half_way)

    for _ in range(2):
        with pytest.raises(Unavailable):
            blobs.read(HASH)
    over.set()


def test_slowly_sending_store_does_not_time_out(in_trouble: InTrouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "SILENCE_S", 2.0)

    def trickle(handler: BaseHTTPRequestHandler, number: int) -> None:
        send(handler, 200, len(LARGE))
        step = len(LARGE) // 12 + 1
        for begin in range(0, len(LARGE), step):
            handler.wfile.write(LARGE[begin : begin + step])
            time.sleep(0.2)

    in_trouble(trickle)

    with blobs.read(HASH) as stored:
        assert stored.read() == LARGE


def test_upload_that_fails_quickly_is_retried_after_closed_connection_and_after_503(
    in_trouble: InTrouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "QUICK_S", PATIENCE_S)
    received: list[bytes] = []

    def refuse_twice(handler: BaseHTTPRequestHandler, number: int) -> None:
        received.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        if number == 1:
            handler.close_connection = True
            return
        send(handler, 503 if number == 2 else 200, 0)

    in_trouble(refuse_twice)

    blobs.put_file(HASH, ContentFile(LARGE))

    assert received == [LARGE] * 3


def test_lasting_overload_is_treated_as_outage(in_trouble: InTrouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "QUICK_S", PATIENCE_S)
    trouble = in_trouble(lambda handler, number: send(handler, 503, 0))

    with pytest.raises(Unavailable):
        blobs.is_stored(HASH)

    assert trouble.requests == 3
