"""How the generated methods send requests: retries, pages, uploads and downloads, blocking and asynchronous.

httpx2, msgspec and the models are imported with the first request, so that importing the client is fast.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple
from uuid import uuid4

from byteor import __version__
from byteor.client.errors import BY_STATUS, ApiError, ByteOrError, ConnectionFailed, UnexpectedResponse

if TYPE_CHECKING:
    import httpx2

type Upload = bytes | Path | BinaryIO
logger = logging.getLogger("byteor.client")
ATTEMPTS: Final = 5
MOST_S: Final = 60.0  # the longest wait before a retry; the server's rate limits count per minute
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Omitted(Enum):
    """The type of ``OMITTED``, the default of fields that may be null: the request does not contain the field."""

    OMITTED = "omitted"


OMITTED: Final = Omitted.OMITTED


def given[Value](value: Value | None) -> Value | Omitted:
    """Return the value of a field that cannot be null; for None return ``OMITTED``."""
    return OMITTED if value is None else value


class Request(NamedTuple):
    """A request. ``model`` names the model in the response: empty for text, ``json`` for any JSON."""

    method: str
    path: str
    model: str = ""
    query: Mapping[str, Any] = MappingProxyType({})
    headers: Mapping[str, Any] = MappingProxyType({})
    fields: Mapping[str, Any] | None = None
    form: Mapping[str, Any] | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether sending the request twice has the same effect as sending it once."""
        return self.method in _REPEATABLE or "Idempotency-Key" in self.headers

    @contextmanager
    def options(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments for httpx2. A creating request gets an idempotency key, unless it has one."""
        headers = _present(self.headers)
        if "Idempotency-Key" in self.headers:
            headers.setdefault("Idempotency-Key", uuid4().hex)
        query = {name: _text(value) for name, value in _present(self.query).items()}
        options: dict[str, Any] = {"method": self.method, "url": self.path, "params": query, "headers": headers}
        if self.fields is not None:
            options["content"] = import_module("msgspec.json").encode(_present(self.fields))
            headers["Content-Type"] = "application/json"
        if self.form is None:
            yield options
            return
        form = _present(self.form)
        file = form.pop("file")
        options["data"] = {name: _text(value) for name, value in form.items()}
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as opened:
            yield {**options, "files": {"file": opened}}

    def wait(self, attempt: int, failure: ByteOrError, *, was_sent: bool = True) -> float:
        """Return the seconds before the next attempt. Raises ``failure`` if there is no next attempt."""
        status, after = (failure.status, failure.retry_after) if isinstance(failure, ApiError) else (0, None)
        is_refused = status == 429 or not was_sent  # nothing has happened, so any request can be sent again
        is_temporary = status in {0, 502, 503, 504} or (status == 409 and after is not None)
        if attempt >= ATTEMPTS or not (is_refused or (is_temporary and self.is_repeatable)) or (after or 0) > MOST_S:
            raise failure
        spread = random.random()  # noqa: S311  spreads retries of many clients, no secret
        seconds = min((after + spread) if after is not None else 2.0 ** (attempt - 2) * (1 + spread), MOST_S)
        logger.warning("%s %s: %s; next attempt in %.1f s", self.method, self.path, failure, seconds)
        return seconds


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not OMITTED}


def _text(value: Any) -> Any:
    """Return a value of a query or a form as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return import_module("msgspec.json").encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value


def _failure(response: httpx2.Response) -> ApiError:
    """Return the exception for a response whose body was read."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    after = response.headers.get("Retry-After", "")
    return BY_STATUS.get(response.status_code, ApiError)(
        response.status_code,
        problem if isinstance(problem, dict) else {"detail": f"{response.status_code} {response.reason_phrase}"},
        retry_after=float(after) if after.isdecimal() else None,
    )


def _lost(error: Exception) -> tuple[ConnectionFailed, bool]:
    """Return the exception for a failed transfer, and whether the server may have received the request."""
    httpx = import_module("httpx2")
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return ConnectionFailed(str(error) or type(error).__name__), not never_sent


def _content(response: httpx2.Response, model: str) -> Any:
    """Return the model, the JSON or the text of a successful response. Raises UnexpectedResponse."""
    if not model:
        return response.headers.get("Location") if response.is_redirect else response.text if response.content else None
    msgspec = import_module("msgspec")
    models, error = import_module("byteor.client.models"), None
    for name in model.split("|"):
        try:
            found = msgspec.json.decode(response.content, type=Any if name == "json" else getattr(models, name))
        except msgspec.MsgspecError as failed:
            error = failed
        else:
            if name != "json":
                found.etag_header = response.headers.get("ETag")
            return found
    raise UnexpectedResponse(f"The response of {response.url} is not as documented: {error}")


def _settings(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    """Return the arguments for httpx2's clients. Redirects are not followed, since they would get the token."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"The URL of the server must begin with https:// or http://: {url!r}")
    headers = {"User-Agent": f"byteor/{__version__}", "Accept": "*/*"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return {"base_url": url.rstrip("/"), "headers": headers, "timeout": timeout}


class Connection:
    """A connection to a server, opened by the first request."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._settings = _settings(url, token, timeout)
        self._client: Any = None

    def send(self, request: Request, *, stream: bool = False) -> httpx2.Response:
        """Send the request, and again if that may help. Raises ApiError and ConnectionFailed."""
        httpx = import_module("httpx2")
        self._client = self._client or httpx.Client(**self._settings)
        with request.options() as options:
            attempt = 0
            while True:
                attempt += 1
                try:
                    response: httpx2.Response = self._client.send(self._client.build_request(**options), stream=stream)
                    if response.status_code < 400:
                        return response
                    response.read()
                    failure: ByteOrError = _failure(response)
                    was_sent = True
                except httpx.TransportError as error:
                    failure, was_sent = _lost(error)
                time.sleep(request.wait(attempt, failure, was_sent=was_sent))

    def close(self) -> None:
        """Close the connection. The next request opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None


class AsyncConnection:
    """Like ``Connection``, asynchronous."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._settings = _settings(url, token, timeout)
        self._client: Any = None

    async def send(self, request: Request, *, stream: bool = False) -> httpx2.Response:
        """Send the request, and again if that may help. Raises ApiError and ConnectionFailed."""
        httpx = import_module("httpx2")
        self._client = self._client or httpx.AsyncClient(**self._settings)
        with request.options() as options:
            attempt = 0
            while True:
                attempt += 1
                try:
                    response: httpx2.Response = await self._client.send(
                        self._client.build_request(**options), stream=stream
                    )
                    if response.status_code < 400:
                        return response
                    await response.aread()
                    failure: ByteOrError = _failure(response)
                    was_sent = True
                except httpx.TransportError as error:
                    failure, was_sent = _lost(error)
                await import_module("asyncio").sleep(request.wait(attempt, failure, was_sent=was_sent))

    async def close(self) -> None:
        """Close the connection. The next request opens it again."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class Pages[Item]:
    """The items of a list. Iterating reads one page after the other."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection, self._request = connection, request

    def pages(self) -> Iterator[Any]:
        """Yield each page, with ``results``, ``next_cursor`` and the other fields of the list."""
        request = self._request
        while True:
            page = _content(self._connection.send(request), request.model)
            yield page
            if not page.next_cursor:
                return
            request = request._replace(query={**request.query, "cursor": page.next_cursor})

    def __iter__(self) -> Iterator[Item]:
        for page in self.pages():
            yield from page.results


class AsyncPages[Item]:
    """Like ``Pages``, asynchronous."""

    def __init__(self, connection: AsyncConnection, request: Request) -> None:
        self._connection, self._request = connection, request

    async def pages(self) -> AsyncIterator[Any]:
        """Yield each page, with ``results``, ``next_cursor`` and the other fields of the list."""
        request = self._request
        while True:
            page = _content(await self._connection.send(request), request.model)
            yield page
            if not page.next_cursor:
                return
            request = request._replace(query={**request.query, "cursor": page.next_cursor})

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in page.results:
                yield item


class Download:
    """A file. Nothing is requested before it is read."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection, self._request = connection, request

    @contextmanager
    def open(self) -> Iterator[Iterator[bytes]]:
        """Send the request, and yield an iterator over the bytes. Raises ConnectionFailed if the file is cut off."""
        response = self._connection.send(self._request, stream=True)
        try:
            yield response.iter_bytes()
        except import_module("httpx2").TransportError as error:
            raise _lost(error)[0] from error
        finally:
            response.close()

    def save(self, path: Path) -> None:
        """Write the file to ``path``, which appears only when the file is complete."""
        with _complete(path) as write, self.open() as parts:
            for part in parts:
                write(part)

    def read(self) -> bytes:
        """Return the file."""
        with self.open() as parts:
            return b"".join(parts)


class AsyncDownload:
    """Like ``Download``, asynchronous."""

    def __init__(self, connection: AsyncConnection, request: Request) -> None:
        self._connection, self._request = connection, request

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send the request, and yield an iterator over the bytes. Raises ConnectionFailed if the file is cut off."""
        response = await self._connection.send(self._request, stream=True)
        try:
            yield response.aiter_bytes()
        except import_module("httpx2").TransportError as error:
            raise _lost(error)[0] from error
        finally:
            await response.aclose()

    async def save(self, path: Path) -> None:
        """Write the file to ``path``, which appears only when the file is complete."""
        with _complete(path) as write:
            async with self.open() as parts:
                async for part in parts:
                    write(part)

    async def read(self) -> bytes:
        """Return the file."""
        async with self.open() as parts:
            return b"".join([part async for part in parts])


@contextmanager
def _complete(path: Path) -> Iterator[Callable[[bytes], Any]]:
    """Yield a function that writes to a temporary file, which is renamed to ``path`` if no exception is raised."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("xb") as file:
            yield file.write
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Calls:
    """What a group of operations shares: the connection, and the path of its level."""

    _path: str

    def __init__(self, calls: Calls | Connection) -> None:
        self._connection: Connection = calls if isinstance(calls, Connection) else calls._connection

    def _call(self, *request: Any, **parts: Any) -> Any:
        sent = Request(*request, **parts)
        return _content(self._connection.send(sent), sent.model)

    def _pages(self, *request: Any, **parts: Any) -> Pages[Any]:
        return Pages(self._connection, Request(*request, **parts))

    def _download(self, *request: Any, **parts: Any) -> Download:
        return Download(self._connection, Request(*request, **parts))


class AsyncCalls:
    """Like ``Calls``, asynchronous."""

    _path: str

    def __init__(self, calls: AsyncCalls | AsyncConnection) -> None:
        self._connection: AsyncConnection = calls if isinstance(calls, AsyncConnection) else calls._connection

    async def _call(self, *request: Any, **parts: Any) -> Any:
        sent = Request(*request, **parts)
        return _content(await self._connection.send(sent), sent.model)

    def _pages(self, *request: Any, **parts: Any) -> AsyncPages[Any]:
        return AsyncPages(self._connection, Request(*request, **parts))

    def _download(self, *request: Any, **parts: Any) -> AsyncDownload:
        return AsyncDownload(self._connection, Request(*request, **parts))
