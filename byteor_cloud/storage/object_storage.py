"""Storage of blobs in a bucket of an S3-compatible store.

Only installations that use a bucket import this module, because the import takes a quarter of a second.
"""

from __future__ import annotations

import io
import socket
import time
from contextlib import closing
from datetime import datetime
from functools import cached_property
from typing import Any, BinaryIO, override

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from django.core.files.base import File
from django.core.files.storage import Storage
from urllib3.connection import HTTPConnection

from byteor_cloud.database.connections import release_connection
from byteor_cloud.storage import data_folders
from byteor_cloud.storage.blobs import ReceivedFile

# A store that transfers nothing for this long counts as unavailable. Including the second for which the client waits
# before it sends a body, a request to a silent store fails within ten seconds.
CONNECT_S = 3
SILENCE_S = 5
# Only failures within this time are retried. A slower failure has used up the time of the caller's request.
QUICK_S = 0.5
_PAUSES_S = (0.1, 0.2)
# The size of the kernel's send buffer. With a larger one, a slow store would seem silent: no bytes can be sent for
# seconds, and after the last byte the response arrives only when the whole buffer has been transmitted.
_UNSENT = 1 << 18
_IDLE_CONNECTIONS = 64
_IN_MEMORY = 1 << 20  # bytes; larger objects are read into a temporary file instead of memory
_PIECE = 1 << 18
_MISSING = {"NoSuchKey", "404"}  # the response to a HEAD request has no body with a code


class ObjectStorage(Storage):
    """Django's storage API for a bucket. Objects with the same name always have the same content."""

    def __init__(self, *, bucket: str, endpoint_url: str | None = None, region: str | None = None) -> None:
        self._bucket, self._endpoint_url, self._region = bucket, endpoint_url, region

    def receive(self, name: str) -> ReceivedFile:
        """Open a temporary file in the data folder. ``save`` sends its bytes to the store."""
        return ReceivedFile(data_folders.uploads(), name, is_kept=False)

    @cached_property
    def _client(self) -> Any:
        """The client, which all threads share. Each process creates its own after the fork."""
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},  # ``_request`` itself retries
            # Some S3-compatible stores lack the newer checksums. They are unnecessary, since names are hashes.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = botocore.session.get_session()
        client = session.create_client("s3", region_name=self._region, endpoint_url=self._endpoint_url, config=config)
        connections = URLLib3Session(
            verify=session.get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(client.meta.endpoint_url),
            timeout=(CONNECT_S, SILENCE_S),
            max_pool_connections=_IDLE_CONNECTIONS,
            socket_options=[*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)],
        )
        client.meta.events.register("before-send.s3", lambda request, **_: connections.send(request))
        return client

    def _request(self, operation: str, *, body: Any = None, **parameters: Any) -> Any:
        """Send a request to the store and return its response.

        Raises FileNotFoundError if the store reports that it has no such object, and otherwise the client's errors.
        """
        release_connection()  # the store may take seconds, during which other requests can use the database connection
        began = time.monotonic()
        for pause in (*_PAUSES_S, None):
            if body is not None:
                body.seek(0)
                parameters["Body"] = body
            try:
                return getattr(self._client, operation)(Bucket=self._bucket, **parameters)
            except (ClientError, ConnectionClosedError, EndpointConnectionError) as error:
                if isinstance(error, ClientError) and error.response["Error"]["Code"] in _MISSING:
                    raise FileNotFoundError(f"the store has no object {parameters['Key']}") from error
                if pause is None or not _is_temporary(error) or time.monotonic() - began > QUICK_S:
                    raise
            time.sleep(pause)
        raise AssertionError  # pragma: no cover  the last attempt returns or raises

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        """Read the whole object, so that later reads do not wait for the store.

        Raises FileNotFoundError, Unavailable, OSError or the client's errors.
        """
        response = self._request("get_object", Key=name)
        is_small = response["ContentLength"] <= _IN_MEMORY
        with closing(response["Body"]) as body:
            copy: BinaryIO = io.BytesIO() if is_small else data_folders.open_temporary(data_folders.uploads())
            try:
                while piece := body.read(_PIECE):
                    copy.write(piece)
                    time.sleep(0)  # otherwise a fast store would keep other requests from running
                copy.seek(0)
            except BaseException:
                copy.close()
                raise
        return File(copy, name)

    def _save(self, name: str, content: File[bytes]) -> str:
        # A Django file without a name is falsy, and botocore would sign an empty body for it. A ``_Body`` is truthy.
        self._request("put_object", Key=name, body=_Body(content.file), ContentType="application/octet-stream")
        return name

    @override
    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    @override
    def exists(self, name: str) -> bool:
        try:
            self._request("head_object", Key=name)
        except FileNotFoundError:
            return False
        return True

    @override
    def size(self, name: str) -> int:
        size: int = self._request("head_object", Key=name)["ContentLength"]
        return size

    @override
    def get_modified_time(self, name: str) -> datetime:
        modified: datetime = self._request("head_object", Key=name)["LastModified"]
        return modified

    @override
    def delete(self, name: str) -> None:
        self._request("delete_object", Key=name)

    @override
    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return no folders, since folders of blobs contain none, and the names of the objects in the folder."""
        prefix = f"{path}/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [], [each["Key"].removeprefix(prefix) for page in pages for each in page.get("Contents", ())]


class _Body:
    """A file that lets other requests run after each read, since botocore hashes whole bodies for plain HTTP."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        piece: bytes = self._file.read(size)
        time.sleep(0)
        return piece


def _is_temporary(error: Exception) -> bool:
    """Return whether a retry may succeed, because the store failed or the connection to it did."""
    return not isinstance(error, ClientError) or error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
