"""What ends after a restore from a backup: enrollment tokens."""

from __future__ import annotations

from django.db.models import F

from apps.fleet.models import EnrollmentToken
from apps.tenancy.actors import Actor
from apps.tenancy.services import tokens


def settle(*, actor: Actor) -> dict[str, int]:
    """Revoke the usable enrollment tokens, because their uses may have been spent since. Returns their number.

    Call this in a transaction.
    """
    usable = EnrollmentToken.objects.usable().filter(uses__lt=F("max_uses")).select_related("environment__project")
    rows = list(usable.order_by("pk"))
    for token in rows:
        tokens.revoke(token, action="enrollment_token.revoke", actor=actor, scope=token.environment)
    return {"enrollment_tokens_revoked": len(rows)}
