"""The HTTP client for the control plane: one origin, no redirects, limited response sizes, typed errors."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, override

import requests
from requests.auth import AuthBase

from byteor.engine.canonical import Fields, Json, parse_object
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import Refused

from .identity import BaseUrl, Credentials, IdentityError, SecretValue
from .progress import OfferReport, ReceivedOffer
from .state_folder import AgentIdentity, StoredKeySet

_CHUNK = 64 * 1024
_MAX_RESPONSE = 4 * 1024 * 1024
_MAX_RETRY_AFTER_S = 3600.0
_TIMEOUT_S = (10, 30)
_RETRYABLE = {408, 429}


class RequestRejected(Exception):
    """A request that would probably fail again.

    The control plane rejected or redirected the request, its response was too large, or the request was never sent. In
    the last case, ``status`` is None.
    """

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(detail if status is None else f"{status}: {detail}")
        self.status = status
        self.detail = detail


class CredentialRejected(RequestRejected):
    """A request with a credential that the control plane does not accept."""


class ControlPlaneUnavailable(Exception):
    """A failure that a retry may fix, such as no response, an unreadable one, or a status of 429 or 503.

    ``retry_after`` is how many seconds to wait before the retry, at most an hour; None if no valid time was received.
    """

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The response to a heartbeat."""

    next_heartbeat_s: float
    desired: ReceivedOffer | None
    signing_key_etag: str | None
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OfferedBundle:
    """An offer with the data that is needed to download and verify its bundle."""

    offer: ReceivedOffer
    bundle_size: int
    bundle_url: str
    envelope: object


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """A requested capture. ``last_n`` is how many of the last records of each journal to capture; None means all."""

    capture_id: str
    reason: str
    last_n: int | None


@dataclass(frozen=True, slots=True)
class JsonReply:
    """A response with its parsed JSON body, which is an empty object if the status is 304."""

    status: int
    headers: Mapping[str, str]
    body: Json


class Client:
    """An HTTP client that sends one credential to one origin."""

    def __init__(self, base_url: BaseUrl, secret: SecretValue) -> None:
        self._base_url = base_url
        self._session = requests.Session()
        # The environment could add a proxy or .netrc credentials. Only a private CA is read from it.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.auth = _OriginAuth(base_url.origin, secret)

    def send(self, method: str, path: str, **options: Any) -> JsonReply:
        """Send a request to a path below the base URL, and return the response (2xx, or 304 with an empty body).

        Raises CredentialRejected, RequestRejected or ControlPlaneUnavailable.
        """
        with self._response(method, self._base_url.text + path, **options) as response:
            data = b"".join(_chunks(response, _MAX_RESPONSE))
            if response.status_code == 304:
                return JsonReply(304, response.headers, {})
            try:
                return JsonReply(response.status_code, response.headers, parse_object(data))
            except ValueError as error:
                raise ControlPlaneUnavailable(f"unreadable response from {path}") from error

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the response body for a path on the origin. Raises what ``send`` raises.

        An invalid path and a body of more than ``limit`` bytes raise RequestRejected.
        """
        is_path = path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()
        if not is_path or "\\" in path:
            raise RequestRejected(None, "the bundle's URL is not a path on the control plane's own origin")
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
            # The error's text could quote the credential, so only the name of its type is shown.
            raise ControlPlaneUnavailable(f"{method} failed: {type(error).__name__}") from None


class ControlPlane:
    """The public API's operations for one agent."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._client = Client(credentials.base_url, credentials.api_key)
        self._path = f"/api/v1/agents/{credentials.agent_id}"
        # New at each start, so that the control plane can distinguish this process from one on another machine.
        self.boot_id = uuid.uuid4().hex

    def use_key(self, api_key: SecretValue) -> None:
        """Send all further requests with this key."""
        self._credentials = replace(self._credentials, api_key=api_key)
        self._client = Client(self._credentials.base_url, api_key)

    def copy(self) -> ControlPlane:
        """Return a client for use in another thread. The copy keeps its key, even if this client gets a new one."""
        copied = ControlPlane(self._credentials)
        copied.boot_id = self.boot_id
        return copied

    def fetch_new_key(self) -> SecretValue:
        """Request a new key for this agent and return it. The first use of the new key revokes the current one."""
        with _parsing("rotate-key"):
            return SecretValue(Fields(self._client.send("POST", f"{self._path}/rotate-key").body).text("token"))

    def fetch_identity(self) -> AgentIdentity:
        """Return this agent's identity."""
        with _parsing("agent"):
            members = Fields(self._client.send("GET", self._path).body)
            return AgentIdentity(
                self._credentials.base_url.text,
                self._credentials.agent_id,
                members.text("environment_id"),
                members.text("name"),
            )

    def send_heartbeat(self, body: Json) -> HeartbeatReply:
        """Send a heartbeat and return the response, which contains the current offer, if there is one."""
        with _parsing("heartbeat"):
            document = self._client.send("POST", f"{self._path}/heartbeat", json=body).body
            members, commands = Fields(document), document.get("commands")
            delay_s = members.member("next_heartbeat_s")
            if not isinstance(delay_s, int | float) or isinstance(delay_s, bool) or not 0 <= delay_s <= 86_400:
                raise ValueError("'next_heartbeat_s' is not a number from 0 to 86400")
            desired = members.member("desired")
            etag = members.member("signing_key_etag")
            return HeartbeatReply(
                float(delay_s),
                None if desired is None else ReceivedOffer.read(Fields(desired)),
                None if etag is None else bare_etag(str(etag)),
                tuple(each for each in commands if isinstance(each, str)) if isinstance(commands, list) else (),
            )

    def fetch_offer(self) -> OfferedBundle | None:
        """Return the current offer and its bundle's size, URL and signed envelope, or None if there is no offer."""
        with _parsing("deployment"):
            desired = Fields(self._client.send("GET", f"{self._path}/deployment").body).member("desired")
            if desired is None:
                return None
            members = Fields(desired)
            return OfferedBundle(
                ReceivedOffer.read(members),
                members.integer("bundle_size"),
                members.text("bundle_url"),
                members.member("envelope"),
            )

    def download_bundle(self, bundle_url: str, limit: int) -> Iterator[bytes]:
        """Yield the bytes of a bundle, as ``Client.stream`` does."""
        return self._client.stream(bundle_url, limit)

    def send_report(self, report: OfferReport) -> None:
        """Report the status of an offer."""
        self._client.send("POST", f"{self._path}/deployment", json={**report.body(), "boot_id": self.boot_id})

    def fetch_signing_keys(self, known: StoredKeySet | None) -> StoredKeySet:
        """Return the published key set, or ``known`` if it has not changed."""
        headers = {"If-None-Match": f'"{known.etag}"'} if known and known.etag else {}
        reply = self._client.send("GET", f"{self._path}/signing-key", headers=headers)
        if reply.status == 304 and known is not None:
            return known
        with _parsing("signing-key"):
            return StoredKeySet(KeySet.from_document(reply.body), bare_etag(reply.headers.get("ETag", "")))

    def fetch_requested_capture(self) -> CaptureRequest | None:
        """Return the oldest requested capture that this agent has not uploaded and that has not expired, or None."""
        with _parsing("capture"):
            pending = Fields(self._client.send("GET", f"{self._path}/capture").body).member("capture")
            if pending is None:
                return None
            members = Fields(pending)
            last_n = None if members.member("last_n") is None else members.integer("last_n")
            if last_n is not None and last_n < 1:
                raise ValueError("'last_n' is not a positive number")
            return CaptureRequest(members.text("id"), members.text("reason"), last_n)

    def upload_artifact(self, fields: Mapping[str, str], name: str, file: BinaryIO) -> Json:
        """Upload an artifact and return it.

        If the environment has an artifact with the same file, kind, spec hash and deployment, it is returned instead.
        """
        return self._client.send("POST", f"{self._path}/artifacts", data=fields, files={"file": (name, file)}).body


def enroll(base_url: BaseUrl, token: SecretValue, environment_path: str, body: Json, idempotency_key: str) -> Json:
    """Create an agent with an enrollment token. A retry with the same idempotency key returns the same agent."""
    headers = {"Idempotency-Key": idempotency_key}
    return Client(base_url, token).send("POST", f"{environment_path}/agents", json=body, headers=headers).body


def bare_etag(value: str) -> str:
    """Return an ETag without its quotes and its weakness prefix."""
    return value.removeprefix("W/").strip('"')


class _OriginAuth(AuthBase):
    """Adds the credential to requests to one origin. Raises RequestRejected for requests to any other origin."""

    def __init__(self, origin: str, secret: SecretValue) -> None:
        self._origin = origin
        self._secret = secret

    @override
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if BaseUrl.parse(re.split("[?#]", request.url or "")[0]).origin != self._origin:
            raise RequestRejected(None, "the request would leave the control plane's origin")
        request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        return request


def _check(response: requests.Response) -> None:
    status = response.status_code
    if status < 300 or status == 304:
        return
    if status < 400:
        raise RequestRejected(status, "the control plane returned a redirect, which the agent does not follow")
    detail = _problem(response)
    if status == 401:
        raise CredentialRejected(status, detail)
    retry_after = response.headers.get("Retry-After")
    # The response is 409 with Retry-After while an earlier request with the same idempotency key is running.
    if status >= 500 or status in _RETRYABLE or (status == 409 and retry_after):
        raise ControlPlaneUnavailable(f"{status}: {detail}", _retry_after(retry_after))
    raise RequestRejected(status, detail)


def _problem(response: requests.Response) -> str:
    try:
        members = parse_object(b"".join(_chunks(response, _MAX_RESPONSE)))
    except (ValueError, ControlPlaneUnavailable, RequestRejected):
        members = {}
    return str(members.get("detail") or members.get("title") or response.reason)


def _chunks(response: requests.Response, limit: int) -> Iterator[bytes]:
    read = 0
    for chunk in response.iter_content(_CHUNK):
        read += len(chunk)
        if read > limit:
            raise RequestRejected(response.status_code, f"the response has more than {limit} bytes")
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
def _parsing(resource: str) -> Iterator[None]:
    """Raise ControlPlaneUnavailable if the response cannot be parsed."""
    try:
        yield
    except (IdentityError, ValueError, Refused) as error:
        raise ControlPlaneUnavailable(f"unreadable {resource} response: {error}") from error
