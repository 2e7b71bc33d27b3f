"""Requests: encoding, retries, and the decoding of responses.

httpx2, msgspec and the models are imported with the first request, so that importing the client is fast.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from enum import Enum
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from byteor import __version__
from byteor.client.errors import BY_STATUS, ApiError, ByteOrError, ConnectionFailed, UnexpectedResponse

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

type Upload = bytes | Path | BinaryIO
ATTEMPTS: Final = 5
MOST_S: Final = 60.0  # the longest wait before a retry
TIMEOUT_S: Final = 60.0  # for each step of a transfer, not for the whole
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Omitted(Enum):
    """The type of ``OMITTED``, the default of nullable fields. Fields with this value are not sent."""

    OMITTED = "omitted"


OMITTED: Final = Omitted.OMITTED


def given[Value](value: Value | None) -> Value | Omitted:
    """Return the value of a field that cannot be null; for None return ``OMITTED``."""
    return OMITTED if value is None else value


def quoted(part: str) -> str:
    """Percent-encode a path segment. Raises ValueError for one that would change the path, such as ``..``."""
    from urllib.parse import quote  # noqa: PLC0415  slow to import

    if part in {"", ".", ".."}:
        raise ValueError(f"This is not an id: {part!r}")
    return quote(str(part), safe="")


class Request(NamedTuple):
    """A request. ``model`` names the model of the response, or several separated by ``|``.

    It is empty for a response that is not JSON, and ``json`` for any JSON.
    """

    method: str
    path: str
    model: str = ""
    query: Mapping[str, Any] = MappingProxyType({})
    headers: Mapping[str, Any] = MappingProxyType({})
    fields: Mapping[str, Any] | None = None
    form: Mapping[str, Any] | None = None

    @contextmanager
    def options(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments for httpx2. A request that accepts an idempotency key gets one, unless it has one."""
        headers = _present(self.headers)
        if "Idempotency-Key" in self.headers:
            headers.setdefault("Idempotency-Key", os.urandom(16).hex())
        query = {name: _text(value) for name, value in _present(self.query).items()}
        options: dict[str, Any] = {"method": self.method, "url": self.path, "headers": headers}
        if query:  # even an empty one would replace the query in the path
            options["params"] = query
        if self.fields is not None:
            options["content"] = import_module("msgspec.json").encode(_present(self.fields))
            headers["Content-Type"] = "application/json"
        if self.form is None:
            yield options
            return
        form = _present(self.form)
        file = form.pop("file")
        options["data"] = {name: _text(value) for name, value in form.items()}
        with open(file, "rb") if isinstance(file, os.PathLike) else nullcontext(file) as opened:
            yield {**options, "files": {"file": opened}}

    def wait_s(self, attempt: int, failure: ByteOrError, *, was_sent: bool = True) -> float:
        """Return the seconds before the next attempt. Raises ``failure`` if there is no next attempt."""
        status, after = (failure.status, failure.retry_after) if isinstance(failure, ApiError) else (0, None)
        is_refused = status == 429 or not was_sent  # nothing has happened, so any request can be sent again
        is_temporary = status in {0, 502, 503, 504} or (status == 409 and after is not None)
        is_idempotent = self.method in _IDEMPOTENT or "Idempotency-Key" in self.headers
        if attempt >= ATTEMPTS or not (is_refused or (is_temporary and is_idempotent)) or (after or 0) > MOST_S:
            raise failure
        from logging import getLogger  # noqa: PLC0415  imported for a failure only
        from random import random  # noqa: PLC0415

        spread = random()  # noqa: S311  spreads retries of many clients, no secret
        seconds = min((after + spread) if after is not None else 2.0 ** (attempt - 2) * (1 + spread), MOST_S)
        log = getLogger("byteor.client")
        log.warning("%s %s: %s; next attempt in %.1f s", self.method, self.path, failure, seconds)
        return seconds

    def after(self, page: Any) -> Request | None:
        """Return the request for the page after this one; None after the last page.

        Raises UnexpectedResponse if the next page would be this page again.
        """
        if not page.next_cursor:
            return None
        if page.next_cursor == self.query.get("cursor"):
            raise UnexpectedResponse(f"The list {self.path} does not end: a page refers to itself as the next page.")
        return self._replace(query={**self.query, "cursor": page.next_cursor})


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not OMITTED}


def _text(value: Any) -> Any:
    """Convert a boolean, object or time in a query or form to text. Return other values unchanged."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return import_module("msgspec.json").encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value


def api_error(response: httpx2.Response) -> ApiError:
    """Return the exception for a response whose body was read."""
    try:
        problem = response.json()
    except (ValueError, RecursionError):
        problem = None
    after = response.headers.get("Retry-After", "")
    return BY_STATUS.get(response.status_code, ApiError)(
        response.status_code,
        problem if isinstance(problem, dict) else {"detail": f"{response.status_code} {response.reason_phrase}"},
        retry_after=float(after) if after.isdecimal() else None,
    )


def lost(error: Exception) -> tuple[ConnectionFailed, bool]:
    """Return the exception for a failed transfer, and whether the server may have received the request."""
    httpx = import_module("httpx2")
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return ConnectionFailed(str(error) or type(error).__name__), not never_sent


def content_of(response: httpx2.Response, model: str) -> Any:
    """Return the model, the JSON or the text of a successful response. Raises UnexpectedResponse.

    If ``model`` is empty, returns None for an empty response, and the target URL for a redirect by a sign-in operation.
    """
    if not model and response.is_redirect and "/auth/" in response.url.path:
        return response.headers.get("Location")
    refuse_page(response)
    if not model:
        return response.text if response.content else None
    msgspec = import_module("msgspec")
    models, error = import_module("byteor.client.models"), None
    for name in model.split("|"):
        try:
            found = msgspec.json.decode(response.content, type=Any if name == "json" else getattr(models, name))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as failed:
            error = failed
        else:
            if name != "json":
                found.etag_header = response.headers.get("ETag")
            return found
    raise UnexpectedResponse(f"The response of {response.url} is not as documented: {error}")


def refuse_page(response: httpx2.Response) -> None:
    """Raise UnexpectedResponse for a web page or a redirect, for example to the sign-in page of a proxy."""
    if response.is_redirect:
        raise UnexpectedResponse(f"{response.url} redirects to {response.headers['Location']}.")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UnexpectedResponse(f"The response of {response.url} is a web page, perhaps of a proxy.")


def settings(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    """Return the arguments for httpx2's clients. Redirects are not followed.

    Raises ValueError if the URL does not begin with ``https://`` or ``http://``, if it contains a user name or a
    password, or if the token has invalid characters. The message contains neither the token nor a password in the URL.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError("The URL of the server must begin with https:// or http://.")
    if "@" in url.split("/")[2]:  # httpx2 would send both instead of the token
        raise ValueError("The URL of the server must not contain a user name or a password.")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("The token contains spaces, line breaks or other characters that no token has.")
    headers = {"User-Agent": f"byteor/{__version__}", "Accept": "*/*"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return {"base_url": url.rstrip("/"), "headers": headers, "timeout": timeout}


@contextmanager
def complete(path: Path) -> Iterator[Callable[[bytes], Any]]:
    """Yield a function that writes to a temporary file, which is renamed to ``path`` if no exception is raised.

    Raises OSError if ``path`` exists but is not a regular file, such as a folder or a device.
    """
    if not path.name or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "It is not a regular file", str(path))
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        with partial.open("xb") as file:
            yield file.write
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
