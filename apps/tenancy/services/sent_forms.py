"""Forms of the console that were sent: each does its work at most once, even if the browser sends it again."""

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
"""How long a form may be sent after it was shown. Sent forms are remembered for longer than that."""
ANSWER_LIFETIME = timedelta(minutes=10)
"""How long the same form gets the same answer. It may hold a secret, so it is kept encrypted, as in the API."""

type Answer = dict[str, Any]


@transaction.atomic
def answer_once(form_id: str, values: Mapping[str, list[str]], *, actor: Actor, work: Callable[[], Answer]) -> Answer:
    """Do a form's work once and return its answer; the same again for a double click, a reload or a lost connection.

    Raises Conflict if the person sent the form before with other values, or longer ago than ``ANSWER_LIFETIME``.
    """
    caller = f"console:{actor.id}"
    fingerprint = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    try:
        with transaction.atomic():  # waits for the first one, if that is still running
            _row(caller, form_id, fingerprint, b"", 2 * LIFETIME).save(force_insert=True)
    except IntegrityError:
        return _answer_again(caller, form_id, fingerprint)
    answer = work()
    # A row of its own, because the answer must be forgotten before the form.
    _row(caller, f"{form_id} answer", fingerprint, json.dumps(answer).encode(), ANSWER_LIFETIME).save(force_insert=True)
    return answer


def _row(caller: str, key: str, fingerprint: str, response: bytes, lifetime: timedelta) -> IdempotencyKey:
    row = IdempotencyKey(
        caller=caller, key=key, fingerprint=fingerprint, status=200, expires_at=timezone.now() + lifetime
    )
    vault.seal(row, "response", response)
    return row


def _answer_again(caller: str, form_id: str, fingerprint: str) -> Answer:
    kept = IdempotencyKey.objects.filter(
        caller=caller, key=f"{form_id} answer", fingerprint=fingerprint, expires_at__gt=timezone.now()
    ).first()
    if kept is None:
        raise Conflict(
            "You sent this form already, and what it asked for was done. Nothing was done a second time. "
            "Send the form again only if you want to do it once more.",
            code="form_sent",
        )
    answer: Answer = json.loads(vault.unseal(kept, "response"))
    return answer
