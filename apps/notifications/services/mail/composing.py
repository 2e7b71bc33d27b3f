"""Compose an e-mail about one or more notifications of a person."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime, parseaddr
from hashlib import sha256
from typing import Any, override
from uuid import UUID

from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from apps.notifications.services.wording import Content
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, Organization
from byteor.engine.counted import count_of

MAX_SHOWN = 50
"""The maximum number of events that a summary shows. The summary counts the others."""
_MAX_SUBJECT = 150
_M = MessageType
# The clause after "You received this e-mail because". For other types and for summaries, the reason is the person's
# role.
_REASONS = {
    _M.APPROVAL_NEEDED: "you can approve or deny this request",
    _M.BREAK_GLASS_NEEDED: "you can approve or deny this deployment",
    _M.KEY_EXPIRES: "you can replace this credential",
    _M.INVITATION: "somebody invited you. If you did not expect the invitation, you can ignore it",
}


class _Policy(EmailPolicy):
    """An e-mail policy that does not encode ``List-Unsubscribe``, because clients do not decode it."""

    @override
    def fold_binary(self, name: str, value: str) -> bytes:
        if name == "List-Unsubscribe":
            return f"{name}: {value}{self.linesep}".encode()
        return super().fold_binary(name, value)


_POLICY = _Policy(linesep="\r\n")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in an e-mail, with the content of its message."""

    event: MessageEvent
    content: Content


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of e-mails, and the installation's URL, with which their links start."""

    mail_from: str
    base_url: str


def compose(
    address: str,
    organization: Organization,
    entries: Sequence[Entry],
    *,
    ids: Collection[UUID],
    is_daily: bool,
    sender: Sender,
) -> EmailMessage:
    """Return the e-mail about these events, as plain text and HTML.

    The e-mail is a summary if ``is_daily`` is set or if it is about more than one event. ``ids`` are the ids of all its
    notifications. ``entries`` may contain only the first of these. The Message-ID is derived from ``ids`` and, for an
    invitation, from the path of its link. It is the same when the e-mail is sent again, unless an invitation has a new
    link. It differs for other notifications, because mail servers may drop an e-mail whose Message-ID they have seen
    before. Raises ValueError or MessageError for an invalid address.
    """
    shown = [_show(entry, sender) for entry in entries]
    name = _one_line(organization.name)
    is_summary = is_daily or len(ids) > 1
    event = entries[0].event
    settings_url = "" if event.type == _M.INVITATION else sender.base_url + reverse("admin:notification_settings")
    heading = _heading(len(ids), name, is_daily=is_daily) if is_summary else shown[0]["sentence"]
    context = {
        "heading": heading,
        "messages": shown,
        "more": f"{len(ids) - len(shown):,} more" if len(ids) > len(shown) else "",
        "is_summary": is_summary,
        "reason": (None if is_summary else _REASONS.get(_M(event.type))) or f"you have a role in {name}",
        "settings_url": settings_url,
    }
    # If an invitation with a link is sent again, it contains a new link, so it needs a new Message-ID.
    parts = [*sorted(map(str, ids)), *(each.content.path for each in entries if each.event.type == _M.INVITATION)]
    digest = sha256(" ".join(parts).encode()).hexdigest()[:32]
    headers = {
        "Date": format_datetime(timezone.now()),
        "Message-ID": f"<{digest}@{parseaddr(sender.mail_from)[1].rpartition('@')[2]}>",
        "Auto-Submitted": "auto-generated",
    }
    if settings_url:
        headers["List-Unsubscribe"] = f"<{settings_url}>"
    mail = EmailMultiAlternatives(
        _shorten(heading.removesuffix(".")), render_to_string("mail/message.txt", context), sender.mail_from, [address],
        headers=headers,
    )  # fmt: skip
    mail.attach_alternative(render_to_string("mail/message.html", context), "text/html")
    return mail.message(policy=_POLICY)


def _show(entry: Entry, sender: Sender) -> dict[str, Any]:
    """Return a message's values for the templates. Each is one line, so that a name cannot fake further lines."""
    content = entry.content
    return {
        "sentence": _one_line(content.sentence),
        "lines": [_one_line(line) for line in content.lines],
        "action": content.action,
        "url": sender.base_url + content.path,
    }


def _heading(count: int, organization: str, *, is_daily: bool) -> str:
    if is_daily:
        return f"Daily summary of {organization}: {count_of(count, 'notification')}"
    return f"{count_of(count, 'notification')} from {organization}"


def _one_line(text: str) -> str:
    """Replace control characters, line breaks and repeated spaces with one space. Joined emoji are kept."""
    return " ".join("".join(" " if _is_control(char) else char for char in text).split())


def _is_control(char: str) -> bool:
    # The characters from 0x202A change the direction of the following text.
    return ord(char) < 32 or 127 <= ord(char) < 160 or 0x202A <= ord(char) <= 0x202E or 0x2066 <= ord(char) <= 0x2069


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SUBJECT else f"{text[: _MAX_SUBJECT - 1]}…"
