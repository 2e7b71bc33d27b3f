"""Send due e-mails in the worker, with back-off after failures."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from datetime import timedelta
from email.errors import MessageError
from time import monotonic
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import Case, DurationField, ExpressionWrapper, F, FloatField, Q, Value, When
from django.db.models.functions import Least, Now, Power
from django.utils import timezone

from apps.notifications.jobs import SendMails
from apps.notifications.models import Notification, NotificationQuerySet
from apps.notifications.services import audience, choices, wording
from apps.notifications.services.mail import smtp
from apps.notifications.services.mail.composing import MAX_SHOWN, Entry, Sender, compose
from apps.notifications.services.wording import Content, invitations
from apps.tenancy.message_types import MessageType, Timing
from apps.tenancy.models import Membership
from byteor_cloud.server.addresses import public_url
from byteor_cloud.worker.jobs import Claim, enqueue, is_outage

# The waits between the 8 attempts are 15 s, 1 min, 4 min, …: about 23 hours in total, plus jitter.
ATTEMPTS, FIRST_WAIT, FACTOR = 8, timedelta(seconds=15), 4
LONGEST_OUTAGE_WAIT = timedelta(minutes=15)
DROPPED_AFTER = timedelta(days=3)
# Limits of one job, so that other organizations get the slot and a shutdown does not wait long.
MAX_MAILS_PER_JOB, MAX_JOB_S = 100, 20
MAX_NOTIFICATIONS = 1000  # in one e-mail
_TOO_OLD = "The e-mail could not be sent within three days."
logger = structlog.get_logger(__name__)


def enqueue_due(organization_id: UUID | None = None) -> None:
    """Enqueue a job for each organization with due e-mails (or only for this one), unless such a job is waiting.

    Do not call this in a transaction that changes other rows, because concurrent transactions would wait for its
    commit.
    """
    if settings.CONFIG.smtp_url is None:
        return
    due = Notification.objects.due(timezone.now()).order_by()
    if organization_id is not None:
        due = due.filter(event__organization=organization_id)
    for found in due.values_list("event__organization_id", flat=True).distinct():
        key = f"mails:{found}"
        person = Membership.first_admin(found)
        enqueue(SendMails(organization_id=str(found)), organization=found, person=person, serial=key, once=key)


def send_due(organization_id: UUID, claim: Claim) -> None:
    """Send the due e-mails of the organization's people, the longest due first, until a limit of the job is reached.

    At the end, enqueues another job if e-mails are still due. If the mail server is unavailable, e-mails are retried
    later (see ``_record_failure``). If the worker is killed after the server accepted an e-mail and before it records
    that, the e-mail is sent again.
    """
    server, mail_from = settings.CONFIG.smtp_url, settings.CONFIG.mail_from
    if server is None or mail_from is None:
        return
    _drop_obsolete(organization_id)
    sender = Sender(mail_from, public_url(settings.CONFIG))
    with smtp.Connection(server) as connection:
        _Mailing(organization_id, claim, connection, sender).run()
    enqueue_due(organization_id)


def _due(organization_id: UUID) -> NotificationQuerySet:
    return Notification.objects.due(timezone.now()).filter(event__organization=organization_id)


def _drop_obsolete(organization_id: UUID) -> None:
    """Drop e-mails about events that the person can no longer see, and e-mails older than ``DROPPED_AFTER``.

    Invitations are dropped only if they are too old.
    """
    due = _due(organization_id).exclude(event__type=MessageType.INVITATION)
    due.exclude(pk__in=due.visible().values("pk")).update(mail_due_at=None)
    old = _due(organization_id).filter(created_at__lt=timezone.now() - DROPPED_AFTER)
    old.update(mail_due_at=None, mail_error=_TOO_OLD)


class _Mailing:
    """One job that sends an organization's e-mails."""

    def __init__(self, organization_id: UUID, claim: Claim, connection: smtp.Connection, sender: Sender) -> None:
        self._organization_id = organization_id
        self._claim = claim
        self._connection = connection
        self._sender = sender
        # The current content of each event, and the people who still get an e-mail about it, read once in a job.
        self._contents: dict[UUID, Content | None] = {}
        self._people: dict[UUID, set[UUID]] = {}
        self._has_failed = False

    def run(self) -> None:
        deadline = monotonic() + MAX_JOB_S
        for _ in range(MAX_MAILS_PER_JOB):
            group = self._find_next()
            if not group or not self._try(group) or monotonic() >= deadline:
                return

    def _try(self, group: Sequence[Notification]) -> bool:
        """Send one e-mail as ``_send`` does. If it cannot be composed, retry it later, without delaying the others."""
        try:
            return self._send(group)
        except Exception as error:
            if is_outage(error):
                raise
            ids = [row.pk for row in group]
            logger.exception("mail_not_composed", organization_id=str(self._organization_id), first=str(ids[0]))
            _retry_later(_rows(ids), "The e-mail could not be composed.")
            return True

    def _find_next(self) -> Sequence[Notification]:
        """Return the notifications for the next e-mail: one invitation, or a person's other due notifications.

        The latter are either the immediate or the daily ones, newest first and at most ``MAX_NOTIFICATIONS``. Returns
        an empty list if no e-mail is due.
        """
        rows = _due(self._organization_id).select_related(
            "user", "event__organization", "event__project", "event__environment"
        )
        first = rows.order_by("mail_due_at", "pk").first()
        if first is None or first.event.type == MessageType.INVITATION:
            return [] if first is None else [first]
        rows = rows.filter(user=first.user_id, mail=first.mail).exclude(event__type=MessageType.INVITATION)
        return list(rows.order_by("-pk")[:MAX_NOTIFICATIONS])

    def _send(self, group: Sequence[Notification]) -> bool:
        """Send one e-mail about these notifications, except obsolete ones. Returns whether to continue with the next.

        Checks the events again until it has found ``MAX_SHOWN`` to show. The e-mail counts the others unchecked.
        """
        entries: list[Entry] = []
        included: list[UUID] = []
        dropped: list[UUID] = []
        for row in group:
            if len(entries) < MAX_SHOWN:
                entry = self._find_entry(row)
                if entry is None:
                    dropped.append(row.pk)
                    continue
                entries.append(entry)
            included.append(row.pk)
        _rows(dropped).update(mail_due_at=None)
        if not entries:
            return True
        rows, user = _rows(included), group[0].user
        try:
            message = compose(
                user.email, group[0].event.organization, entries, ids=included, is_daily=group[0].mail == Timing.DAILY,
                sender=self._sender,
            )  # fmt: skip
        except (ValueError, MessageError):
            rows.update(mail_due_at=None, mail_error="The address cannot be used in an e-mail.")
            return True
        self._claim.ensure()
        try:
            self._connection.send(message)
        except smtp.Refused as error:
            rows.update(mail_tries=F("mail_tries") + 1, mail_due_at=None, mail_error=str(error))
        except smtp.Deferred as error:
            _retry_later(rows, str(error))
        except smtp.Unavailable as error:
            return self._record_failure(rows, error)
        else:
            self._claim.retry_until_stored(lambda: _record_sent(rows))
        self._has_failed = False
        return True

    def _find_entry(self, notification: Notification) -> Entry | None:
        """Return the entry, or None if the event is obsolete or the person must no longer get an e-mail about it."""
        event = notification.event
        if event.pk not in self._people:
            people = audience.find_people(event)
            timings = choices.find_timings(event, people, requesters=audience.find_requesters(event))
            self._people[event.pk] = {user_id for user_id in people if timings[user_id] is not Timing.OFF}
            self._contents[event.pk] = wording.describe_handled(event)
        content = self._contents[event.pk]
        is_concerned = notification.user_id in self._people[event.pk] and notification.user.email_verified
        if content is None or not is_concerned:
            return None
        if event.type == MessageType.INVITATION:
            content = invitations.with_link(event, content)
        return Entry(event, content)

    def _record_failure(self, rows: NotificationQuerySet, error: smtp.Unavailable) -> bool:
        """Retry this e-mail later, or all due e-mails of the organization if the server seems to be down.

        The server seems to be down if this job could never connect and sign in, or if the server failed twice in a row.
        Returns whether to continue with the next e-mail. One e-mail that makes the server fail must not delay the
        others. If the server is down, however, a separate attempt for each e-mail would take too long.
        """
        logger.warning("mail_server_unavailable", reason=str(error), organization_id=str(self._organization_id))
        if self._connection.was_open and not self._has_failed:
            self._has_failed = True
            _retry_later(rows, str(error))
            return True
        _wait_for_server(_due(self._organization_id), str(error))
        return False


def _rows(ids: Collection[UUID]) -> NotificationQuerySet:
    return Notification.objects.filter(pk__in=list(ids))


def _record_sent(rows: NotificationQuerySet) -> None:
    rows.update(mail_tries=F("mail_tries") + 1, mail_due_at=None, mailed_at=timezone.now(), mail_error="")


def _retry_later(rows: NotificationQuerySet, reason: str) -> None:
    """Count a failed attempt, and set when each e-mail is retried. After ``ATTEMPTS`` attempts, it is given up."""
    rows.update(
        mail_due_at=Case(When(Q(mail_tries__gte=ATTEMPTS - 1), then=None), default=Now() + _backoff()),
        mail_tries=F("mail_tries") + 1,
        mail_error=reason,
    )


def _wait_for_server(rows: NotificationQuerySet, reason: str) -> None:
    """Retry these e-mails after at most ``LONGEST_OUTAGE_WAIT``, because the server is down."""
    rows.update(
        mail_due_at=Now() + Least(_backoff(), Value(LONGEST_OUTAGE_WAIT, DurationField())),
        mail_tries=Least(F("mail_tries") + 1, ATTEMPTS - 2),
        mail_error=reason,
    )


def _backoff() -> ExpressionWrapper[Any]:
    """Return the wait after a failed attempt, which grows with the number of attempts."""
    jitter = random.uniform(1, 1.2)  # noqa: S311  no secret: the factor only spreads the load
    factor = Power(Value(FACTOR), F("mail_tries"), output_field=FloatField())
    return ExpressionWrapper(Value(FIRST_WAIT * jitter, DurationField()) * factor, output_field=DurationField())
