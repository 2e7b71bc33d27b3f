# Written by tests/clients/write_client.py from async_runtime.py. Do not edit: run `make schema`.
"""Sending requests, reading paginated lists, and downloading files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from byteor.client.errors import ByteOrError
from byteor.client.request import Request, api_error, complete, content_of, lost, refuse_page, settings

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2


class Connection:
    """A connection to a server, opened by the first request."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._settings = settings(url, token, timeout)
        self._client: Any = None

    def send(self, request: Request, *, stream: bool = False) -> httpx2.Response:
        """Send the request, with retries. Raises ApiError and ConnectionFailed."""
        httpx = import_module("httpx2")
        self._client = self._client or httpx.Client(**self._settings)
        with request.options() as options:
            attempt = 0
            while True:
                attempt += 1
                was_sent, sent = True, self._client.build_request(**options)
                try:
                    response: httpx2.Response = self._client.send(sent, stream=stream)
                    if response.status_code < 400:
                        return response
                    response.read()
                    failure: ByteOrError = api_error(response)
                except httpx.RequestError as error:
                    failure, was_sent = lost(error)
                time.sleep(request.wait_s(attempt, failure, was_sent=was_sent))

    def close(self) -> None:
        """Close the connection. The next request opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None


class Pages[Item]:
    """A paginated list. Iterating requests one page after another."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection, self._request = connection, request

    def pages(self) -> Iterator[Any]:
        """Yield each page, with ``results``, ``next_cursor`` and the other fields of the list."""
        request: Request | None = self._request
        while request is not None:
            page = content_of(self._connection.send(request), request.model)
            yield page
            request = request.after(page)

    def __iter__(self) -> Iterator[Item]:
        for page in self.pages():
            yield from page.results


class Download:
    """A download. The request is sent when the content is read."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection, self._request = connection, request

    @contextmanager
    def open(self) -> Iterator[Iterator[bytes]]:
        """Send the request, and yield an iterator over the bytes. Raises ConnectionFailed if the connection fails."""
        response = self._connection.send(self._request, stream=True)
        try:
            refuse_page(response)
            yield response.iter_bytes()
        except import_module("httpx2").RequestError as error:
            raise lost(error)[0] from error
        finally:
            response.close()

    def save(self, path: Path) -> None:
        """Write the content to ``path``. The file is created only when the download is complete."""
        with complete(path) as write, self.open() as parts:
            for part in parts:
                write(part)

    def read(self) -> bytes:
        """Return the content."""
        content = bytearray()
        with self.open() as parts:
            for part in parts:
                content += part
        return bytes(content)


class Calls:
    """The base of a group of operations: the connection and the path of its level."""

    _path = ""

    def __init__(self, calls: Calls | Connection) -> None:
        self._connection: Connection = calls if isinstance(calls, Connection) else calls._connection

    def _call(self, *request: Any, **parts: Any) -> Any:
        sent = Request(*request, **parts)
        return content_of(self._connection.send(sent), sent.model)

    def _pages(self, *request: Any, **parts: Any) -> Pages[Any]:
        return Pages(self._connection, Request(*request, **parts))

    def _download(self, *request: Any, **parts: Any) -> Download:
        return Download(self._connection, Request(*request, **parts))
