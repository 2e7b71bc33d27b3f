"""``Idempotency-Key``: store the first 2xx response to a POST, and return it to repeated requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.access import Principal
from apps.tenancy.models import IdempotencyKey
from apps.tenancy.services import vault
from byteor_cloud.api.parameters import IDEMPOTENCY_KEY
from byteor_cloud.api.rendering import PausingJSONRenderer
from byteor_cloud.errors import Conflict, DomainError, InvalidInput

LIFETIME = timedelta(hours=24)
SECRET_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request with an ``Idempotency-Key``: its caller, key and fingerprint, and how long to keep the response."""

    caller: str
    key: str
    fingerprint: str
    lifetime: timedelta

    @classmethod
    def of(cls, request: Request, *, principal: Principal, holds_secret: bool) -> Repeatable:
        """Read a request's key and fingerprint. Raises InvalidInput for an invalid key.

        If ``holds_secret`` is set, the response is kept for 10 minutes instead of 24 hours.
        """
        key = request.headers["Idempotency-Key"]
        try:
            IDEMPOTENCY_KEY.read(key)
        except ValueError as wrong:
            raise InvalidInput.at_parameter("Idempotency-Key", str(wrong)) from None
        body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
        fingerprint = hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()
        return cls(principal.caller, key, fingerprint, SECRET_LIFETIME if holds_secret else LIFETIME)

    @property
    def number(self) -> int:
        """The number of the key's advisory lock."""
        digest = hashlib.sha256(f"{self.caller}\n{self.key}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)


def idempotent(
    handler: Callable[..., Response], *, principal: Principal, holds_secret: bool
) -> Callable[..., Response]:
    """Wrap ``handler`` so that a repeated request with the same key gets the first 2xx response again.

    The wrapper raises InvalidInput for an invalid key, and the Conflict that ``claim`` returns.
    """

    def wrapped(request: Request, *args: Any, **kwargs: Any) -> Response:
        repeatable = Repeatable.of(request, principal=principal, holds_secret=holds_secret)
        with transaction.atomic():
            earlier = claim([repeatable])[0]
            if isinstance(earlier, DomainError):
                raise earlier
            if earlier is not None:
                return earlier
            response = handler(request, *args, **kwargs)
            if 200 <= response.status_code < 300:
                to_rows([(repeatable, response)])[0].save()
        return response

    return wrapped


def claim(requests: Sequence[Repeatable]) -> list[Response | DomainError | None]:
    """Lock the requests' keys until the transaction ends. Return each request's stored response, a Conflict or None.

    A Conflict means that another request with the key is still running, or that the key was used with another request.
    None means that the request is new: execute it, and store its response in the same transaction (``to_rows``).
    """
    free = _lock_keys([request.number for request in requests])
    now = timezone.now()
    ours = Q()
    for request in requests:
        ours |= Q(caller=request.caller, key=request.key)
    found = {(row.caller, row.key): row for row in IdempotencyKey.objects.filter(ours)} if requests else {}
    claimed: set[int] = set()
    results: list[Response | DomainError | None] = []
    for request, is_free in zip(requests, free, strict=True):
        if not is_free or request.number in claimed:
            detail = "The first request with this Idempotency-Key is still running. Retry this request later."
            results.append(Conflict(detail, retry_after=1))
            continue
        claimed.add(request.number)
        row = found.get((request.caller, request.key))
        if row is not None and row.expires_at <= now:
            row.delete()
            row = None
        results.append(None if row is None else _replay(row, request.fingerprint))
    return results


def is_stored(repeatable: Repeatable) -> bool:
    """Return whether a response is stored under the key, even if the key was used with another request."""
    rows = IdempotencyKey.objects.filter(caller=repeatable.caller, key=repeatable.key, expires_at__gt=timezone.now())
    return rows.exists()


def _lock_keys(numbers: Sequence[int]) -> list[bool]:
    """Lock the keys with these numbers until the transaction ends, and return for each whether it was free."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(number) FROM unnest(%s::bigint[]) WITH ORDINALITY AS k (number, place)"
            " ORDER BY place",
            [list(numbers)],
        )
        return [bool(is_free) for (is_free,) in cursor.fetchall()]


def to_rows(responses: Sequence[tuple[Repeatable, Response]]) -> list[IdempotencyKey]:
    """Return the responses as rows, which the caller must save."""
    rows = [
        IdempotencyKey(
            caller=repeatable.caller,
            key=repeatable.key,
            fingerprint=repeatable.fingerprint,
            status=response.status_code,
            expires_at=timezone.now() + repeatable.lifetime,
        )
        for repeatable, response in responses
    ]
    stored = [[each.get("Location"), getattr(each, "revision", None), each.data] for _, each in responses]
    render = PausingJSONRenderer().render
    vault.seal_all((row, "response", render(each)) for row, each in zip(rows, stored, strict=True))
    return rows


def _replay(found: IdempotencyKey, fingerprint: str) -> Response | DomainError:
    if found.fingerprint != fingerprint:
        detail = "This Idempotency-Key was used with another request. Use a new key for each request."
        return Conflict(detail, code="idempotency_key_reused")
    location, revision, data = json.loads(vault.unseal(found, "response"))
    response = Response(data, status=found.status, headers={"Idempotent-Replayed": "true"})
    if location is not None:
        response["Location"] = location
    if revision is not None:
        response.revision = revision  # type: ignore[attr-defined]  # our own attribute: ResourceViewSet derives the ETag from it
    return response
