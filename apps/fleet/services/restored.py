"""Revoke enrollment tokens and empty the list of refused agents after a restore from a backup."""

from __future__ import annotations

from django.db.models import F

from apps.fleet.models import EnrollmentToken, RefusedAgent
from apps.tenancy.actors import Actor
from apps.tenancy.services import tokens


def settle(*, actor: Actor) -> dict[str, int]:
    """Revoke the usable enrollment tokens, because their uses may have been spent since the backup.

    Returns the number of revoked tokens, as ``enrollment_tokens_revoked``. Also empties the list of refused agents, so
    that it contains only agents that are refused after the restore. Call this in a transaction.
    """
    RefusedAgent.objects.all().delete()
    usable = EnrollmentToken.objects.usable().filter(uses__lt=F("max_uses")).select_related("environment__project")
    rows = list(usable.order_by("pk"))
    for token in rows:
        tokens.revoke(token, action="enrollment_token.revoke", actor=actor, scope=token.environment)
    return {"enrollment_tokens_revoked": len(rows)}
