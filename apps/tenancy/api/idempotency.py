"""``Idempotency-Key``: store the first 2xx response to a creating POST, and return it to repeated requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy import vault
from apps.tenancy.access import Principal
from apps.tenancy.models import IdempotencyKey
from byteor_cloud.api.parameters import IDEMPOTENCY_KEY
from byteor_cloud.errors import Conflict, InvalidInput

LIFETIME = timedelta(hours=24)
SECRET_LIFETIME = timedelta(minutes=10)


def answer_once(
    handler: Callable[..., Response], *, principal: Principal, holds_secret: bool
) -> Callable[..., Response]:
    """Wrap ``handler`` so that a request with a repeated key gets the first response again.

    ``holds_secret`` says that the response contains a secret; it is then stored for 10 minutes instead of 24 hours.
    """

    def wrapped(request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers["Idempotency-Key"]
        try:
            IDEMPOTENCY_KEY.read(key)
        except ValueError as wrong:
            raise InvalidInput.at_parameter("Idempotency-Key", str(wrong)) from None
        body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
        fingerprint = hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()
        with transaction.atomic():
            _lock_key(f"{principal.caller}\n{key}")
            found = IdempotencyKey.objects.filter(caller=principal.caller, key=key).first()
            if found is not None and found.expires_at <= timezone.now():
                found.delete()
                found = None
            if found is not None:
                return _replay(found, fingerprint)
            response = handler(request, *args, **kwargs)
            if 200 <= response.status_code < 300:
                _store(
                    response,
                    principal.caller,
                    key,
                    fingerprint,
                    SECRET_LIFETIME if holds_secret else LIFETIME,
                )
        return response

    return wrapped


def _lock_key(name: str) -> None:
    """Lock the key until the transaction ends. Raises Conflict while another request with the same key runs."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        if not cursor.fetchone()[0]:
            detail = "The first request with this Idempotency-Key is still running. Repeat this one later."
            raise Conflict(detail, retry_after=1)


def _store(response: Response, caller: str, key: str, fingerprint: str, lifetime: timedelta) -> None:
    stored = [response.get("Location"), getattr(response, "revision", None), response.data]
    row = IdempotencyKey(
        caller=caller,
        key=key,
        fingerprint=fingerprint,
        status=response.status_code,
        expires_at=timezone.now() + lifetime,
    )
    vault.seal(row, "response", JSONRenderer().render(stored))
    row.save()


def _replay(found: IdempotencyKey, fingerprint: str) -> Response:
    if found.fingerprint != fingerprint:
        detail = "This Idempotency-Key was used with another request. Use a new key for each request."
        raise Conflict(detail, code="idempotency_key_reused")
    location, revision, data = json.loads(vault.unseal(found, "response"))
    response = Response(data, status=found.status, headers={"Idempotent-Replayed": "true"})
    if location is not None:
        response["Location"] = location
    if revision is not None:
        response.revision = revision  # type: ignore[attr-defined]  # ApiViewSet makes the ETag from it
    return response
