"""Forms of the console that were sent: each does its work at most once, even if the browser sends it again."""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.tenancy import vault
from apps.tenancy.actors import Actor
from apps.tenancy.models import IdempotencyKey
from byteor_cloud.errors import Conflict

LIFETIME = timedelta(hours=12)
"""How long a form may be sent after it was shown. Sent forms are remembered for longer than that."""


def record_sent_form(form_id: str, *, actor: Actor) -> None:
    """Record that the person sent this form. Raises Conflict if they sent it before.

    The caller must do the form's work in the same transaction. An idempotency key of the API cannot replay the answer:
    the row holds none, so a secret is shown once only.
    """
    row = IdempotencyKey(
        caller=f"console:{actor.id}",
        key=form_id,
        fingerprint="",
        status=200,
        expires_at=timezone.now() + 2 * LIFETIME,
    )
    vault.seal(row, "response", b"")
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise Conflict(
            "You sent this form already, and what it asked for was done. Nothing was done a second time. "
            "Send the form again only if you want to do it once more.",
            code="form_sent",
        ) from None
