"""HTTP to the control plane: one origin, no redirects, bounded answers, typed refusals."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, override

import requests
from requests.auth import AuthBase

from byteor_cloud.engine.delivery.encoding import Fields, Json, parse_object
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import Refused

from .identity import BaseUrl, Credentials, Secret
from .progress import Offer, Report
from .state import Node, StoredKeys

_CHUNK = 64 * 1024
_MAX_ANSWER = 4 * 1024 * 1024
_MAX_RETRY_AFTER_S = 3600.0
_TIMEOUT_S = (10, 30)
_TRY_AGAIN = {408, 429}


class Rejected(Exception):
    """This request is refused for good: by the control plane, or (no status) before it was sent."""

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(detail if status is None else f"{status}: {detail}")
        self.status = status
        self.detail = detail


class Unauthorized(Rejected):
    """The credential is not accepted."""


class Unavailable(Exception):
    """No usable answer now; try again, not before ``retry_after`` seconds where the control plane said so."""

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat."""

    next_heartbeat_s: float
    desired: Offer | None
    signing_key_etag: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An offer with all that is needed to fetch and verify its bundle."""

    offer: Offer
    bundle_size: int
    bundle_url: str
    envelope: object


@dataclass(frozen=True, slots=True)
class Answer:
    """A read response."""

    status: int
    headers: Mapping[str, str]
    body: Json


class Client:
    """Sends one credential to one origin."""

    def __init__(self, base_url: BaseUrl, secret: Secret) -> None:
        self._base_url = base_url
        self._session = requests.Session()
        # The environment could add a proxy or .netrc credentials; only a private CA is taken from it.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.auth = _OriginAuth(base_url.origin, secret)

    def send(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request below the base URL and read its JSON answer (2xx or 304)."""
        with self._response(method, self._base_url.text + path, **options) as response:
            data = b"".join(_chunks(response, _MAX_ANSWER))
            if response.status_code == 304:
                return Answer(304, response.headers, {})
            try:
                return Answer(response.status_code, response.headers, parse_object(data))
            except ValueError as error:
                raise Unavailable(f"unreadable answer from {path}") from error

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the body of a path on the origin, at most ``limit`` bytes of it."""
        plain = path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()
        if not plain or "\\" in path:
            raise Rejected(None, "the bundle's address is not a path on the control plane's own origin")
        with self._response("GET", self._base_url.origin + path) as response:
            yield from _chunks(response, limit)

    @contextmanager
    def _response(self, method: str, url: str, **options: Any) -> Iterator[requests.Response]:
        try:
            response = self._session.request(
                method, url, allow_redirects=False, stream=True, timeout=_TIMEOUT_S, **options
            )
            with response:
                _check(response)
                yield response
        except requests.RequestException as error:
            # Its text could quote what was sent; its name says enough.
            raise Unavailable(f"{method} failed: {type(error).__name__}") from None


class ControlPlane:
    """The operations of one agent."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._client = Client(credentials.base_url, credentials.api_key)
        self._path = f"/api/v1/agents/{credentials.agent_id}"

    def node(self) -> Node:
        """Return who the control plane says this agent is."""
        with _readable("agent"):
            members = Fields(self._client.send("GET", self._path).body)
            return Node(
                self._credentials.base_url.text,
                self._credentials.agent_id,
                members.text("environment_id"),
                members.text("name"),
            )

    def heartbeat(self, body: Json) -> Beat:
        """Send a heartbeat; the answer says what is wanted."""
        with _readable("heartbeat"):
            members = Fields(self._client.send("POST", f"{self._path}/heartbeat", json=body).body)
            wait = members.member("next_heartbeat_s")
            if not isinstance(wait, int | float) or isinstance(wait, bool) or not 0 <= wait <= 86_400:
                raise ValueError("'next_heartbeat_s' is not a number of seconds")
            desired = members.member("desired")
            etag = members.member("signing_key_etag")
            return Beat(
                float(wait),
                None if desired is None else Offer.read(Fields(desired)),
                None if etag is None else bare_etag(str(etag)),
            )

    def delivery(self) -> Delivery | None:
        """Return what is offered now, in full."""
        with _readable("deployment"):
            desired = Fields(self._client.send("GET", f"{self._path}/deployment").body).member("desired")
            if desired is None:
                return None
            members = Fields(desired)
            return Delivery(
                Offer.read(members),
                members.integer("bundle_size"),
                members.text("bundle_url"),
                members.member("envelope"),
            )

    def download(self, bundle_url: str, limit: int) -> Iterator[bytes]:
        """Yield a bundle's bytes, at most ``limit``."""
        return self._client.stream(bundle_url, limit)

    def report(self, report: Report) -> None:
        """Report how far an offer has come."""
        self._client.send("POST", f"{self._path}/deployment", json=report.body())

    def signing_keys(self, known: StoredKeys | None) -> StoredKeys:
        """Return the published key set: the known one when it has not changed."""
        headers = {"If-None-Match": f'"{known.etag}"'} if known and known.etag else {}
        answer = self._client.send("GET", f"{self._path}/signing-key", headers=headers)
        if answer.status == 304 and known is not None:
            return known
        with _readable("signing-key"):
            return StoredKeys(KeySet.of(answer.body), bare_etag(answer.headers.get("ETag", "")))

    def upload(self, fields: Mapping[str, str], name: str, file: BinaryIO) -> Json:
        """Upload an artifact; sending the same content again gives the same artifact."""
        return self._client.send("POST", f"{self._path}/artifacts", data=fields, files={"file": (name, file)}).body


def enroll(base_url: BaseUrl, token: Secret, environment_path: str, body: Json, idempotency_key: str) -> Json:
    """Spend an enrollment token; the same idempotency key gives the same agent again."""
    headers = {"Idempotency-Key": idempotency_key}
    return Client(base_url, token).send("POST", f"{environment_path}/agents", json=body, headers=headers).body


def bare_etag(value: str) -> str:
    """Return what is inside of an ETag's quotes."""
    return value.removeprefix("W/").strip('"')


class _OriginAuth(AuthBase):
    """Adds the credential to requests for its origin; no other request may even be prepared."""

    def __init__(self, origin: str, secret: Secret) -> None:
        self._origin = origin
        self._secret = secret

    @override
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if BaseUrl.parse((request.url or "").partition("?")[0]).origin != self._origin:
            raise Rejected(None, "the request leaves the control plane's origin")
        request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        return request


def _check(response: requests.Response) -> None:
    status = response.status_code
    if status < 300 or status == 304:
        return
    if status < 400:
        raise Rejected(status, "the control plane answered with a redirect, which an agent does not follow")
    detail = _problem(response)
    if status == 401:
        raise Unauthorized(status, detail)
    retry_after = response.headers.get("Retry-After")
    # A 409 that names a time is the first try of an idempotent request, still running.
    if status >= 500 or status in _TRY_AGAIN or (status == 409 and retry_after):
        raise Unavailable(f"{status}: {detail}", _retry_after(retry_after))
    raise Rejected(status, detail)


def _problem(response: requests.Response) -> str:
    try:
        members = parse_object(b"".join(_chunks(response, _MAX_ANSWER)))
    except (ValueError, Unavailable, Rejected):
        members = {}
    return str(members.get("detail") or members.get("title") or response.reason)


def _chunks(response: requests.Response, limit: int) -> Iterator[bytes]:
    read = 0
    for chunk in response.iter_content(_CHUNK):
        read += len(chunk)
        if read > limit:
            raise Rejected(response.status_code, f"the answer has more than {limit} bytes")
        yield chunk


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdigit() else _until(parsedate_to_datetime(value))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _until(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, Refused) as error:
        raise Unavailable(f"unreadable answer to {what}: {error}") from error
