"""Messages about webhooks, credentials and quotas."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.db.models import Model
from django.utils import timezone

from apps.fleet.models import EnrollmentToken
from apps.notifications.models import ChatWebhook
from apps.notifications.services.wording.content import Content, format_time, page_path
from apps.tenancy.models import Credential, MessageEvent, OrganizationKey, Quota, UserToken, Webhook
from byteor.engine.counted import count_of

_CREDENTIALS: dict[str, type[Credential]] = {
    "user_token": UserToken,
    "organization_key": OrganizationKey,
    "enrollment_token": EnrollmentToken,
}
# The unit of each quota (the noun and the words after it, as in "its quota of 1 byte of storage"), and what happens
# when the quota is used up.
_QUOTAS = {
    Quota.AGENTS: ("agent", "", "New agents cannot enroll"),
    Quota.STORED_BYTES: ("byte", " of storage", "Uploads, reduced captures and new deployments are refused"),
    Quota.CAPTURES_PER_DAY: ("capture", " a day", "Uploads of captures are refused until midnight (UTC)"),
    Quota.DRAFTS: ("draft", "", "New drafts are refused"),
}


def describe_webhook(event: MessageEvent) -> Content | None:
    """Describe a webhook that is failing or was disabled.

    Names only the host of the URL, because the rest may contain a secret. Returns None if the webhook was
    deleted, was disabled by a request, or is enabled and not failing.
    """
    found = _find_webhook(event)
    if found is None:
        return None
    webhook, what, path = found
    action = "Open the webhook"
    if not webhook.enabled and webhook.disabled_reason:
        return Content(f"The {what} was disabled.", path, action, (webhook.disabled_reason,))
    if not webhook.enabled or webhook.failing_since is None:
        return None
    since = format_time(webhook.failing_since)
    return Content(f"The {what} has been failing since {since}.", path, action)


def _find_webhook(event: MessageEvent) -> tuple[Webhook | ChatWebhook, str, str] | None:
    """Return the webhook, a phrase with its kind and host, and the path of its page; None if it was deleted."""
    if event.resource_kind == "webhook":
        if (webhook := Webhook.objects.filter(pk=event.resource_id).first()) is not None:
            return webhook, f"webhook to {urlsplit(webhook.url).hostname}", _page_of(webhook)
    elif (chat := ChatWebhook.objects.filter(pk=event.resource_id).first()) is not None:
        return chat, f"chat webhook to {chat.host}", _page_of(chat)
    return None


def describe_expiry(event: MessageEvent) -> Content | None:
    """Describe a credential that expires soon.

    Names a user token only by its prefix, because only the owner can see its name. Returns None if the credential was
    revoked, used up or deleted, or has already expired.
    """
    model = _CREDENTIALS[event.resource_kind]
    credential: Any = model._default_manager.filter(pk=event.resource_id, revoked_at=None).first()
    if credential is None or credential.expires_at is None or credential.expires_at <= timezone.now():
        return None
    match credential:
        case UserToken():
            what, renew = f"Your token {credential}", "Create a new token before then."
        case OrganizationKey():
            what, renew = f"The API key {credential.name} of {event.organization}", "Create a new API key before then."
        case EnrollmentToken(is_spent=True):
            return None
        case _:
            what = f"The enrollment token {credential} of {event.environment}"
            renew = "Create a new enrollment token before then. Agents that have enrolled are not affected."
    used = credential.last_used_at
    lines = (renew, f"It was last used at {format_time(used)}." if used else "It was never used.")
    return Content(
        f"{what} expires at {format_time(credential.expires_at)}.",
        _page_of(credential),
        f"Open the {_noun(event)}",
        lines,
    )


def _page_of(row: Model) -> str:
    return page_path(row._meta.label_lower.replace(".", "_"), row.pk)


def _noun(event: MessageEvent) -> str:
    return "API key" if event.resource_kind == "organization_key" else "token"


def describe_quota(event: MessageEvent) -> Content | None:
    """Describe a quota that an organization has almost or completely used up."""
    noun, rest, refused = _QUOTAS[Quota(event.data["quota"])]
    used, limit = event.data["used"], event.data["limit"]
    quota = f"{count_of(limit, noun)}{rest}"
    percent = used * 100 // limit
    if percent >= 100:
        sentence, then = f"{event.organization} has used up its quota of {quota}.", f"{refused}."
    else:
        sentence = f"{event.organization} uses {percent} % of its quota of {quota}."
        then = f"When the quota is used up: {refused[0].lower()}{refused[1:]}."
    ask = "An operator of this installation can raise the quota."
    path = page_path("tenancy_organization", event.organization_id)
    return Content(sentence, path, "Open the organization", (f"In use: {used:,}", then, ask))
