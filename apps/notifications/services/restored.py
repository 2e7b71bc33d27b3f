"""Drop pending e-mails and chat messages after a restore from a backup."""

from __future__ import annotations

from apps.notifications.models import ChatDelivery, Notification
from apps.tenancy.services.restored import drop_deliveries

_NOT_SENT = "The installation was restored from a backup, and the e-mail may have been sent before."


def settle() -> dict[str, int]:
    """Drop all pending e-mails and chat messages, because they may have been sent before. Returns their numbers.

    Call this in a transaction.
    """
    mails = Notification.objects.filter(mail_due_at__isnull=False).update(mail_due_at=None, mail_error=_NOT_SENT)
    return {"mails_dropped": mails, "chat_messages_dropped": drop_deliveries(ChatDelivery)}
