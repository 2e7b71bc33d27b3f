"""URLs of the console's pages, and HTML of the values on them: states, links, hashes and times."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import BooleanField, CharField, DateTimeField, Field, ForeignKey, JSONField, Model
from django.http import HttpRequest
from django.urls import get_script_prefix, reverse
from django.utils import timezone
from django.utils.html import format_html

from apps.tenancy.models import Environment, Project
from apps.tenancy.permissions import Role
from byteor_cloud.concurrency.event_loop import pause

# The tone in which ``state_pill`` shows each word. Any other word is plain.
TONES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "active",
            "approved",
            "approve",
            "verified",
            "compiles",
            "succeeded",
            "online",
            "healthy",
            "success",
            "current",
            "delivered",
            "passed",
            "equal",
            "uploaded",
        ),
        "good",
    ),
    **dict.fromkeys(("building", "deploying", "running", "doing", "downloading", "activating", "offered"), "busy"),
    **dict.fromkeys(("pending_approval", "pending", "queued", "todo", "received", "starting", "requested"), "waiting"),
    **dict.fromkeys(
        (
            "rolling_back",
            "stale",
            "degraded",
            "draining",
            "diverged",
            "expired",
            "retiring",
            "paused",
            "drifted",
            "differs",
            "different",
        ),
        "warn",
    ),
    **dict.fromkeys(
        (
            "failed",
            "denied",
            "deny",
            "rejected",
            "offline",
            "error",
            "known bad",
            "dead letter",
            "revoked",
            "does not compile",
            "unstable",
        ),
        "bad",
    ),
    "break glass": "bad",
    "freeze overridden": "warn",
    "gate overridden": "warn",
    "replay gate": "warn",
    "accepted": "good",
    "not accepted": "warn",
    # Reasons in the explanation of an agent.
    "runs_desired": "good",
    **dict.fromkeys(("rollback_failed", "deployment_failed", "known_bad", "threshold", "break_glass"), "bad"),
    **dict.fromkeys(("local_rollback", "not_fetched", "freeze_window", "superseded", "ended_before_its_turn"), "warn"),
    **dict.fromkeys(
        (
            "waits_for_approval",
            "waits_for_freeze",
            "waits_for_gate",
            "waits_for_turn",
            "waits_for_wave",
            "waits_for_hold",
            "waits_for_start_time",
            "held_up",
        ),
        "waiting",
    ),
    # Blockers of a deployment. Two more, freeze_window and held_up, are above.
    **dict.fromkeys(("in_flight_limit", "pipeline_busy", "agents_busy", "start_at", "wave_hold"), "waiting"),
    "too_few_reviewers": "warn",
    "replay_gate.running": "busy",
    "replay_gate.failed": "bad",
    **dict.fromkeys(("replay_gate.differs", "replay_gate.too_few_fixtures"), "warn"),
    # Postures.
    "staging": "waiting",
    "prod": "warn",
}


def state_pill(word: str | None) -> str:
    """Return a state as a colored word; "-" without a state."""
    if not word:
        return "-"
    text = word.replace("_", " ").replace(".", ": ")
    return format_html('<span class="pill {}">{}</span>', TONES.get(word, "plain"), text)


def page_url(model: type[Model], kind: str, *args: Any, **options: Any) -> str:
    """Return the URL of the model's page ``kind``, for example ``change``, with ``args`` such as a row's key."""
    if len(args) == 1 and isinstance(args[0], UUID) and not options:
        return _row_page_url(model, kind, get_script_prefix()).replace(_ANY_KEY, str(args[0]))
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=args, **options)


_ANY_KEY = str(UUID(int=0))


@cache
def _row_page_url(model: type[Model], kind: str, prefix: str) -> str:
    """Return the URL of a page for the key ``_ANY_KEY``. It is cached, because a list links to hundreds of rows.

    ``prefix`` is Django's script prefix. It is not used here, but the cached URL depends on it.
    """
    return page_url(model, kind, _ANY_KEY)


def row_url(row: Model) -> str:
    """Return the URL of the row's page. Only the row's key is read."""
    return page_url(type(row), "change", quote(row.pk))


def act_url(row: Model, act: str) -> str:
    """Return the URL of an act's page for the row."""
    return page_url(type(row), "act", quote(row.pk), act)


def base_url_of(request: HttpRequest) -> str:
    """Return the origin for absolute URLs: the configured one, otherwise that of the request."""
    return settings.CONFIG.public_base_url or request.build_absolute_uri("/").rstrip("/")


def list_url(model: type[Model]) -> str:
    """Return the URL of the model's table."""
    return _list_url(model, get_script_prefix())


@cache
def _list_url(model: type[Model], prefix: str) -> str:
    """Return the URL of a table. The URL is cached, because a page links to dozens of tables.

    ``prefix`` is Django's script prefix. It is not used here, but the cached URL depends on it.
    """
    return page_url(model, "changelist")


def row_link(row: Model | None, text: str | None = None) -> str:
    """Return a link to the row's page; "-" without a row."""
    return "-" if row is None else text_link(row_url(row), text or str(row))


def text_link(url: str, text: object) -> str:
    """Return an HTML link with this text."""
    return format_html('<a class="text-link" href="{}">{}</a>', url, text)


def short_id(value: Any) -> str:
    """Return a hash or an id in short form, with the full value in the tooltip; "-" without a value."""
    if not value:
        return "-"
    text = str(value)
    head, _, rest = text.rpartition(":")
    shown = f"{head}:{rest[:10]}…" if head else f"…{text[-8:]}"
    return format_html('<code class="short-id" title="{}">{}</code>', text, shown)


def with_note(value: Any, note: str) -> str:
    """Return a value with a note below it, if there is one."""
    return format_html('{}<div class="note">{}</div>', value, note) if note else str(value)


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def relative_time(moment: datetime | None) -> str:
    """Return a time relative to now ("3 h ago", "in 5 min"), with the exact time in the tooltip; "-" for None."""
    if moment is None:
        return "-"
    seconds = int((timezone.now() - moment).total_seconds())
    size, unit = next((each for each in _UNITS if abs(seconds) >= each[0]), (1, "s"))
    count = abs(seconds) // size
    text = "now" if count == 0 else f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact_time(moment), text)


def time_of_deadline(moment: datetime) -> str:
    """Return the time of a deadline relative to now. Returns "now" if it has passed, since its effect follows soon."""
    return relative_time(max(moment, timezone.now()))


def time_left(moment: datetime | None) -> str:
    """Return the time left until ``moment``, which the browser counts down; ``relative_time`` if past or None."""
    if moment is None or moment <= timezone.now():
        return relative_time(moment)
    return format_html(
        '<time datetime="{}" title="{}" data-until>{}</time>', moment.isoformat(), exact_time(moment),
        f"{format_duration((moment - timezone.now()).total_seconds())} left",
    )  # fmt: skip


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units; below a minute, in seconds. live.js uses the same format."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def exact_time(moment: datetime | None) -> str:
    """Return a time in UTC with seconds; "-" for None."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def environment_link(environment: Any) -> str:
    """Return a link with the project's name as well, because several projects may have environments with the same name.

    Returns "-" for None.
    """
    return "-" if environment is None else row_link(environment, f"{environment.project} / {environment}")


def tenant_path(row: Any) -> str:
    """Return the name of an organization, project or environment after the names of the levels above it.

    For any other row, return the row as text.
    """
    match row:
        case Environment():
            return f"{row.project.organization} / {row.project} / {row}"
        case Project():
            return f"{row.organization} / {row}"
    return str(row)


def _indented(encoder: type[json.JSONEncoder] | None, value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    text = json.dumps(value, cls=encoder, ensure_ascii=False, indent=2, sort_keys=True)
    return format_html('<code class="payload">{}</code>', text)


SERVICE: Final = "ByteOr Cloud"  # the name of the system as an actor


def actor_name(display: str) -> str:
    """Return the name of who did something; "-" if it is empty.

    The system's own actors, such as "system:rollout", have one name.
    """
    return SERVICE if display.startswith("system:") else display or "-"


def name_role(role: str) -> str:
    """Return a role in words."""
    return _ROLES.get(role, role)


def _minute(number: int) -> datetime:
    """Return the start of the minute with this number. Minutes are counted from 1970."""
    return datetime.fromtimestamp(60 * number, UTC)


def _yes_or_no(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _text(value: Any) -> str:
    return "-" if value in (None, "") else str(value)


# Titles of fields, where the name of the model's field is not the word that the console uses.
FIELD_TITLES: Mapping[str, str] = {
    "user": "Person", "email": "E-mail", "email_verified": "E-mail verified", "is_active": "Active",
    "is_current": "Current", "kid": "Key id", "seq": "Number", "prev_hash": "Previous hash", "id": "Id", "role": "Role",
    "is_pending": "Pending", "actor_display": "Actor", "actor_kind": "Kind of actor",
}  # fmt: skip
_ROLES: Mapping[str, str] = {Role.ORG_ADMIN: "organization admin", Role.PROJECT_ADMIN: "project admin"}
_STATES = frozenset({"status", "progress", "posture", "decision", "outcome"})


def _display_for(field: Field[Any, Any], *, in_table: bool) -> Callable[[Any], str] | None:
    if isinstance(field, DateTimeField):
        return relative_time if in_table else exact_time
    if isinstance(field, CharField) and field.name in _STATES:
        return state_pill
    if field.name == "environment":
        return environment_link
    if isinstance(field, JSONField) and not in_table:
        return partial(_indented, field.encoder)
    if isinstance(field, BooleanField):
        return _yes_or_no
    if field.name == "minute":
        return lambda number: (relative_time if in_table else exact_time)(_minute(number))
    if isinstance(field, CharField) and field.name.endswith("_by"):
        return actor_name
    if field.name == "role":
        return name_role
    if isinstance(field, CharField) and field.choices:
        return lambda value: _text(value).replace("_", " ")
    if in_table and field.name.endswith("hash"):
        return short_id
    if field.name in FIELD_TITLES:
        return row_link if isinstance(field, ForeignKey) and not in_table else _text
    return None


@cache
def admin_column(field: Field[Any, Any], *, in_table: bool) -> Any:
    """Return the admin column of a field: a function that formats the value, or the name if Django formats it."""
    display = _display_for(field, in_table=in_table)
    if display is None:
        return field.name

    def shown(row: Model) -> str:
        pause()  # let other requests run, since a page has hundreds of cells
        return display(getattr(row, field.name))

    title = FIELD_TITLES.get(field.name) or str(field.verbose_name).removesuffix(" at").removesuffix(" hash")
    shown.__name__ = field.name
    return admin.display(description=title[0].upper() + title[1:], ordering=field.name)(shown)
