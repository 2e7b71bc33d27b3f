"""Sending requests, reading paginated lists, and downloading files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from byteor.client.errors import ByteOrError
from byteor.client.request import Request, api_error, complete, content_of, lost, refuse_page, settings

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2


class AsyncConnection:
    """A connection to a server, opened by the first request."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._settings = settings(url, token, timeout)
        self._client: Any = None

    async def send(self, request: Request, *, stream: bool = False) -> httpx2.Response:
        """Send the request, with retries. Raises ApiError and ConnectionFailed."""
        httpx = import_module("httpx2")
        self._client = self._client or httpx.AsyncClient(**self._settings)
        with request.options() as options:
            attempt = 0
            while True:
                attempt += 1
                was_sent, sent = True, self._client.build_request(**options)
                try:
                    response: httpx2.Response = await self._client.send(sent, stream=stream)
                    if response.status_code < 400:
                        return response
                    await response.aread()
                    failure: ByteOrError = api_error(response)
                except httpx.RequestError as error:
                    failure, was_sent = lost(error)
                await asyncio.sleep(request.wait_s(attempt, failure, was_sent=was_sent))

    async def close(self) -> None:
        """Close the connection. The next request opens it again."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class AsyncPages[Item]:
    """A paginated list. Iterating requests one page after another."""

    def __init__(self, connection: AsyncConnection, request: Request) -> None:
        self._connection, self._request = connection, request

    async def pages(self) -> AsyncIterator[Any]:
        """Yield each page, with ``results``, ``next_cursor`` and the other fields of the list."""
        request: Request | None = self._request
        while request is not None:
            page = content_of(await self._connection.send(request), request.model)
            yield page
            request = request.after(page)

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in page.results:
                yield item


class AsyncDownload:
    """A download. The request is sent when the content is read."""

    def __init__(self, connection: AsyncConnection, request: Request) -> None:
        self._connection, self._request = connection, request

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send the request, and yield an iterator over the bytes. Raises ConnectionFailed if the connection fails."""
        response = await self._connection.send(self._request, stream=True)
        try:
            refuse_page(response)
            yield response.aiter_bytes()
        except import_module("httpx2").RequestError as error:
            raise lost(error)[0] from error
        finally:
            await response.aclose()

    async def save(self, path: Path) -> None:
        """Write the content to ``path``. The file is created only when the download is complete."""
        with complete(path) as write:
            async with self.open() as parts:
                async for part in parts:
                    write(part)

    async def read(self) -> bytes:
        """Return the content."""
        content = bytearray()
        async with self.open() as parts:
            async for part in parts:
                content += part
        return bytes(content)


class AsyncCalls:
    """The base of a group of operations: the connection and the path of its level."""

    _path = ""

    def __init__(self, calls: AsyncCalls | AsyncConnection) -> None:
        self._connection: AsyncConnection = calls if isinstance(calls, AsyncConnection) else calls._connection

    async def _call(self, *request: Any, **parts: Any) -> Any:
        sent = Request(*request, **parts)
        return content_of(await self._connection.send(sent), sent.model)

    def _pages(self, *request: Any, **parts: Any) -> AsyncPages[Any]:
        return AsyncPages(self._connection, Request(*request, **parts))

    def _download(self, *request: Any, **parts: Any) -> AsyncDownload:
        return AsyncDownload(self._connection, Request(*request, **parts))
