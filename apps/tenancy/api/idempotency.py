"""``Idempotency-Key``: the first 2xx answer to a creating POST is kept with the write and given again."""

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


def once(handler: Callable[..., Response], *, principal: Principal, holds_secret: bool) -> Callable[..., Response]:
    """``handler`` wrapped so that a repeated key replays the first answer."""

    def wrapped(request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers["Idempotency-Key"]
        try:
            IDEMPOTENCY_KEY.read(key)
        except ValueError as wrong:
            raise InvalidInput.at_parameter("Idempotency-Key", str(wrong)) from None
        body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
        fingerprint = hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()
        with transaction.atomic():
            _hold(f"{principal.caller}\n{key}")
            found = IdempotencyKey.objects.filter(caller=principal.caller, key=key).first()
            if found is not None and found.expires_at <= timezone.now():
                found.delete()
                found = None
            if found is not None:
                return _replay(found, fingerprint)
            response = handler(request, *args, **kwargs)
            if 200 <= response.status_code < 300:
                _keep(
                    response,
                    principal.caller,
                    key,
                    fingerprint,
                    SECRET_LIFETIME if holds_secret else LIFETIME,
                )
        return response

    return wrapped


def _hold(name: str) -> None:
    """Hold the key until the transaction ends. Raises Conflict while another request of the same key runs."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        if not cursor.fetchone()[0]:
            raise Conflict("The first request with this Idempotency-Key still runs.", retry_after=1)


def _keep(response: Response, caller: str, key: str, fingerprint: str, lifetime: timedelta) -> None:
    kept = [response.get("Location"), getattr(response, "revision", None), response.data]
    row = IdempotencyKey(
        caller=caller,
        key=key,
        fingerprint=fingerprint,
        status=response.status_code,
        expires_at=timezone.now() + lifetime,
    )
    vault.seal(row, "response", JSONRenderer().render(kept))
    row.save()


def _replay(found: IdempotencyKey, fingerprint: str) -> Response:
    if found.fingerprint != fingerprint:
        raise Conflict("This Idempotency-Key was used with another request.", code="idempotency_key_reused")
    location, revision, data = json.loads(vault.unseal(found, "response"))
    response = Response(data, status=found.status, headers={"Idempotent-Replayed": "true"})
    if location is not None:
        response["Location"] = location
    if revision is not None:
        response.revision = revision  # type: ignore[attr-defined]  # of the ETag, which is made of the answer again
    return response
