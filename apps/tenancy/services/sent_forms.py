"""Submitted forms of the console: each takes effect at most once, even if the browser submits it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.models import IdempotencyKey
from apps.tenancy.services import vault
from byteor_cloud.errors import Conflict

LIFETIME = timedelta(hours=12)
"""How long a form can be submitted after it was shown. A submitted form is stored for twice as long."""
RESULT_LIFETIME = timedelta(minutes=10)
"""How long a repeated form gets the same result. The result may contain a secret, so it is stored encrypted."""

type FormResult = dict[str, Any]


@transaction.atomic
def run_once(
    form_id: str, values: Mapping[str, list[str]], *, actor: Actor, work: Callable[[], FormResult]
) -> FormResult:
    """Run ``work`` for a submitted form, and return the result. A double click, reload or retry gets the same result.

    Raises Conflict if the person submitted the form before with other values, or longer ago than ``RESULT_LIFETIME``.
    """
    caller = f"console:{actor.id}"
    fingerprint = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    try:
        with transaction.atomic():  # the insert waits while the first submission is still running
            _row(caller, form_id, fingerprint, b"", 2 * LIFETIME).save(force_insert=True)
    except IntegrityError:
        return _first_result(caller, form_id, fingerprint)
    result = work()
    # The result has a separate row, because it must expire earlier than the form.
    _row(caller, f"{form_id} answer", fingerprint, json.dumps(result).encode(), RESULT_LIFETIME).save(force_insert=True)
    return result


def _row(caller: str, key: str, fingerprint: str, response: bytes, lifetime: timedelta) -> IdempotencyKey:
    row = IdempotencyKey(
        caller=caller, key=key, fingerprint=fingerprint, status=200, expires_at=timezone.now() + lifetime
    )
    vault.seal(row, "response", response)
    return row


def _first_result(caller: str, form_id: str, fingerprint: str) -> FormResult:
    stored = IdempotencyKey.objects.filter(
        caller=caller, key=f"{form_id} answer", fingerprint=fingerprint, expires_at__gt=timezone.now()
    ).first()
    if stored is None:
        raise Conflict(
            "You already submitted this form, and it has taken effect. Nothing was done a second time. "
            "Submit the form again only if you want to repeat the action.",
            code="form_sent",
        )
    result: FormResult = json.loads(vault.unseal(stored, "response"))
    return result
