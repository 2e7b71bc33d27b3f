"""Send the due messages of a chat webhook in the worker, with back-off after failures.

A message is sent again if the worker is killed before it records that the message was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from apps.notifications.models import ChatDelivery, ChatFormat, ChatWebhook
from apps.notifications.services import wording
from apps.notifications.services.chat.deliveries import enqueue_sending
from apps.notifications.services.chat.formats import format_message
from apps.notifications.services.chat.webhooks import scope_of
from apps.notifications.services.wording import Content
from apps.notifications.services.wording.content import format_time, page_path, shorten
from apps.tenancy.models import MessageEvent
from apps.tenancy.services import vault
from apps.tenancy.services.webhooks import attempts, outgoing
from apps.tenancy.services.webhooks.outgoing import PostResult
from apps.tenancy.webhook_events import Outcome
from byteor_cloud import __version__
from byteor_cloud.server.addresses import public_url

# Limits of one job, so that other chat webhooks get the slot and a shutdown does not wait long.
MAX_MESSAGES_PER_JOB, MAX_JOB_S = 20, 10
# Messages about events that could not be sent for this long are dropped.
DROPPED_AFTER = timedelta(days=3)
# If more than ``SENT_SINGLY`` events are due, one message summarizes up to ``MAX_SUMMARIZED`` of them.
SENT_SINGLY, MAX_SUMMARIZED = 10, 100
# The 4xx statuses after which a retry may succeed.
_TEMPORARY = {408, 425, 429}
_ERROR_CODE = re.compile(r"[a-z][a-z_]{1,60}")
_MAX_EXCERPT = 100
_SECRET_LENGTH = 8  # shorter parts of a URL, such as "hooks", are assumed not to be secret


def send_due(webhook_id: UUID) -> None:
    """Send the due messages of one chat webhook until one fails or a limit of the job is reached.

    Messages with fewer attempts come first. If the number of attempts is equal, older messages come first. At a limit,
    enqueues another job, which sends the messages that remain, if any.
    """
    deadline = monotonic() + MAX_JOB_S
    organization_id: UUID | None = None
    for _ in range(MAX_MESSAGES_PER_JOB):
        due = _read_due(webhook_id)
        if not due:
            return
        organization_id = due[0].webhook.organization_id
        sent, content = _next_message(due)
        if content is not None and not _attempt(sent, content):
            return
        if monotonic() >= deadline:
            break
    if organization_id is not None:
        enqueue_sending(webhook_id, organization_id)


def _read_due(webhook_id: UUID) -> list[ChatDelivery]:
    rows = ChatDelivery.objects.select_related(
        "webhook__organization", "webhook__project", "webhook__environment__project__organization",
        "event__organization", "event__project", "event__environment",
    )  # fmt: skip
    # A message that failed must not delay messages that were not tried yet.
    return list(rows.due(timezone.now()).filter(webhook=webhook_id).order_by("tries", "pk")[:MAX_SUMMARIZED])


def _next_message(due: Sequence[ChatDelivery]) -> tuple[list[ChatDelivery], Content | None]:
    """Return the deliveries that the next message covers, and its content.

    If the first delivery is of a test message, returns only this one. Otherwise, checks the first delivery, or all
    deliveries of events if more than ``SENT_SINGLY`` of them are due. Skips those that are too old or whose events are
    obsolete. The content is None if all checked deliveries were skipped.
    """
    if due[0].event is None:
        return [due[0]], _describe_test(due[0].webhook)
    of_events = [each for each in due if each.event is not None]
    if len(of_events) <= SENT_SINGLY:
        of_events = of_events[:1]
    described = [(each, content) for each in of_events if (content := _describe(each)) is not None]
    sent = [each for each, _ in described]
    _skip([each for each in of_events if each not in sent])
    if len(described) <= 1:
        return sent, described[0][1] if described else None
    return sent, _summarize([(each.event, content) for each, content in described if each.event is not None])


def _describe_test(webhook: ChatWebhook) -> Content:
    return Content(
        f"This is a test of the chat webhook {webhook.name}.",
        page_path("notifications_chatwebhook", webhook.pk),
        "Open the chat webhook",
    )


def _describe(delivery: ChatDelivery) -> Content | None:
    """Return the current content of the message; None if the event is obsolete or the delivery is too old."""
    if delivery.event is None or delivery.created_at < timezone.now() - DROPPED_AFTER:
        return None
    return wording.describe_handled(delivery.event)


def _summarize(described: Sequence[tuple[MessageEvent, Content]]) -> Content:
    """Return the content of a message that summarizes several events."""
    first, count = described[0][0], sum(event.count for event, _ in described)
    environments = {event.environment_id for event, _ in described}
    since = min(
        datetime.fromisoformat(event.data["since"]) if "since" in event.data else event.created_at
        for event, _ in described
    )
    sentence = f"{count:,} events since {format_time(since)}."
    lines = shorten([content.sentence for _, content in described])
    if len(environments) == 1 and first.environment_id is not None:
        return Content(sentence, page_path("tenancy_environment", first.environment_id), "Open the environment", lines)
    return Content(sentence, reverse("admin:index"), "Open the overview", lines)


def _attempt(deliveries: Sequence[ChatDelivery], content: Content) -> bool:
    """Make one attempt and record its result with each delivery. Returns whether the server accepted the message."""
    webhook, at = deliveries[0].webhook, timezone.now()
    message = format_message(ChatFormat(webhook.format), content, base_url=public_url(settings.CONFIG))
    try:
        url = vault.unseal(webhook, "url").decode()
    except vault.VaultError:
        result = PostResult(None, "master_key", 0)
    else:
        headers = {"Content-Type": "application/json", "User-Agent": f"ByteOr-Cloud/{__version__}"}
        body = json.dumps(message).encode()
        sent = outgoing.post(url, body, headers, allowed=settings.CONFIG.webhook_allow_private)
        result = replace(sent, error=sent.error or find_error(sent, url))
    _record(deliveries, result, at)
    return result.is_success


def find_error(result: PostResult, url: str) -> str:
    """Return the error in a chat server's response, at most 100 characters; empty if none is found.

    If the status is 2xx but the server did not accept the message, the error is never empty. The long parts of the
    URL's path and query, which may be secret, are replaced in the error.
    """
    text = result.body.decode(errors="replace").strip()
    is_accepted = result.is_success
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):  # Mattermost: {"status_code": 400, "message": "…"}
        code = found.get("status_code")
        is_accepted &= not (isinstance(code, int) and code >= 400)
        is_accepted &= found.get("ok") is not False and found.get("success") is not False
        text = str(found.get("message") or found.get("error") or "")
    else:  # Slack: "ok" or an error code, such as ``channel_not_found``
        is_accepted &= text in {"", "ok"}
        text = text if text != "ok" and _ERROR_CODE.fullmatch(text) else ""
    if is_accepted:
        return ""
    return _clean(text, url) or ("unexpected_response" if result.is_success else "")


def _clean(text: str, url: str) -> str:
    """Return the start of the text, without nonprintable characters and long parts of the URL's path and query."""
    parts = re.split(r"[/?&=]", url.partition("://")[2].partition("/")[2])
    for part in parts:
        if len(part) >= _SECRET_LENGTH:
            text = re.sub(re.escape(part), "…", text, flags=re.IGNORECASE)
    return "".join(each for each in text if each.isprintable())[:_MAX_EXCERPT].strip()


@transaction.atomic
def _record(deliveries: Sequence[ChatDelivery], result: PostResult, at: datetime) -> None:
    """Record the result of an attempt. If the worker is killed before this, the message is sent again."""
    webhook = ChatWebhook.objects.select_for_update(no_key=True).filter(pk=deliveries[0].webhook_id).first()
    if webhook is None:
        return  # the webhook was deleted in the meantime
    is_refused = result.status is not None and 400 <= result.status < 500 and result.status not in _TEMPORARY
    is_final = is_refused or deliveries[0].event_id is None  # a failed test is not retried
    rows = _lock(deliveries)
    for row in rows:
        attempts.record(row, result, at, is_final=is_final)
    if (next_at := max((row.next_attempt_at for row in rows if row.next_attempt_at), default=None)) is not None:
        # Other messages would probably fail as well, so they wait until then.
        others = ChatDelivery.objects.filter(webhook=webhook, status=Outcome.PENDING, next_attempt_at__lt=next_at)
        others.update(next_attempt_at=next_at)
    has_failed = any(row.status == Outcome.FAILED for row in rows)
    attempts.update_receiver(
        webhook, result, has_failed=has_failed, kind="chat_webhook", scope=scope_of(deliveries[0].webhook)
    )


@transaction.atomic
def _skip(deliveries: Sequence[ChatDelivery]) -> None:
    """Mark deliveries of events that are obsolete or too old as failed, without sending a message."""
    for row in _lock(deliveries):
        attempts.record(row, PostResult(None, "obsolete", 0), timezone.now(), is_final=True)


def _lock(deliveries: Sequence[ChatDelivery]) -> list[ChatDelivery]:
    rows = ChatDelivery.objects.filter(pk__in=[each.pk for each in deliveries]).order_by("pk")
    return list(rows.select_for_update(no_key=True))
