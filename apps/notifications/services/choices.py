"""Decide when people get e-mails: by their own choices, the organization's defaults, or the default of the event."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.notifications.models import NotificationSettings
from apps.tenancy.access import visible_environments
from apps.tenancy.actors import Actor
from apps.tenancy.message_types import MessageType, Timing
from apps.tenancy.models import MessageEvent, User
from apps.tenancy.services import audit
from byteor_cloud.errors import InvalidInput, PreconditionFailed

ANY = "*"
_M = MessageType
# These events need an action that only few people can take.
_NOW = {_M.APPROVAL_NEEDED, _M.BREAK_GLASS_NEEDED, _M.WAVE_HELD, _M.WEBHOOK_FAILING, _M.KEY_EXPIRES, _M.QUOTA_NEAR}
# E-mails about these are immediate by default only for the person who requested the deployment.
_NOW_FOR_REQUESTER = {_M.ROLLOUT_STOPPED, _M.ROLLOUT_ROLLED_BACK}

type Choices = Mapping[str, Mapping[str, str]]


def find_timings(
    event: MessageEvent, user_ids: Collection[UUID], *, requesters: Collection[UUID]
) -> dict[UUID, Timing]:
    """Return when each of these people gets an e-mail about the event."""
    if event.type == _M.INVITATION:
        return dict.fromkeys(user_ids, Timing.NOW)
    own = dict(NotificationSettings.objects.filter(user__in=user_ids).values_list("user_id", "choices"))
    defaults = event.organization.settings_with_defaults["default_notification_settings"]
    return {
        user_id: _find_timing(event, own.get(user_id, {}), defaults, is_requester=user_id in requesters)
        for user_id in user_ids
    }


def _find_timing(event: MessageEvent, own: Choices, defaults: Mapping[str, str], *, is_requester: bool) -> Timing:
    chosen = own.get(event.type, {})
    timing = chosen.get(str(event.environment_id)) or chosen.get(ANY) or defaults.get(event.type)
    return Timing(timing) if timing else default_timing(MessageType(event.type), is_requester=is_requester)


def default_timing(type: MessageType, *, is_requester: bool = False) -> Timing:
    """Return when people get an e-mail if neither they nor the organization have chosen."""
    return Timing.NOW if type in _NOW or (is_requester and type in _NOW_FOR_REQUESTER) else Timing.OFF


def read_settings(user: User) -> NotificationSettings:
    """Return the person's stored choices, or a row without choices that is not stored."""
    return NotificationSettings.objects.filter(user=user).first() or NotificationSettings(user=user)


@transaction.atomic
def save_settings(
    user: User, choices: Choices, *, actor: Actor, expected_revision: int | None = None
) -> NotificationSettings:
    """Replace the person's choices for the events in ``choices``, and keep those for all other events.

    An empty mapping for an event removes its choices. Raises InvalidInput for an environment that the person
    cannot see, unless the stored choices already contain it, and PreconditionFailed if the revision is
    not ``expected_revision``.
    """
    NotificationSettings.objects.bulk_create([NotificationSettings(user=user)], ignore_conflicts=True)
    row = NotificationSettings.objects.select_for_update().get(user=user)
    if expected_revision is not None and row.revision != expected_revision:
        raise PreconditionFailed("The settings were changed in the meantime. Read them again.")
    _check_environments(user, row.choices, choices)
    merged = {**row.choices, **{name: dict(chosen) for name, chosen in choices.items()}}
    kept = {name: chosen for name, chosen in merged.items() if chosen}
    if kept != row.choices:
        audit.record_of_person(
            "notification_settings.update",
            person=user,
            actor=actor,
            resource=("user", user.pk),
            changes={
                name: [row.choices.get(name), kept.get(name)]
                for name in merged
                if row.choices.get(name) != kept.get(name)
            },
        )
        row.choices, row.revision, row.updated_at = kept, row.revision + 1, timezone.now()
        row.save(update_fields=["choices", "revision", "updated_at"])
    return row


def _check_environments(user: User, before: Choices, after: Choices) -> None:
    named = {key for chosen in after.values() for key in chosen} - {ANY}
    new = named - {key for chosen in before.values() for key in chosen}
    found = visible_environments(user).filter(pk__in=new).values_list("pk", flat=True)
    missing = new - {str(pk) for pk in found}
    for name, chosen in after.items():
        for key in chosen:
            if key in missing:
                raise InvalidInput.at(
                    f"/settings/{name}/{key}",
                    "The environment does not exist, or you do not have access to it.",
                    code="does_not_exist",
                )
