"""The filters of the audit list: by time, actor, action, resource, request and outcome."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.console.frame.columns import SERVICE, exact_time
from apps.console.frame.console_user import console_user_of
from apps.console.frame.scope import list_scope_of
from apps.console.frame.site import listed_rows
from apps.console.pages.audit_sentences import PHRASES, RESOURCES, noun_of
from apps.fleet.models import Agent
from apps.tenancy.models import AuditEvent, Environment, Organization, OrganizationKey, User
from byteor_cloud.ids import smallest_uuid7

_RANGES: Final = {"1h": 1, "24h": 24, "7d": 7 * 24, "30d": 30 * 24, "90d": 90 * 24}  # in hours
_RANGE_TITLES: Final = {
    "1h": "Last hour",
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
}
# An event gets its id and its timestamp one after the other, so the times in them differ slightly.
_SLACK: Final = timedelta(minutes=1)
_MAX_TEXT: Final = 320
# The number of newest events whose actors the field "Actor" suggests. Also the maximum number of people with the given
# e-mail address, and of keys and of agents with the given name, whose events are found.
_SUGGESTED: Final = 500
_OUTCOMES: Final = {"success": "Success", "denied": "Denied", "error": "Error"}


def _phrases() -> list[tuple[str, Any]]:
    """Return the actions as choices, grouped by the part before the first dot."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for action, phrase in PHRASES.items():
        text = phrase.replace("{}", "…")
        groups.setdefault(action.partition(".")[0], []).append((action, text[0].upper() + text[1:]))
    return [
        (_title(kind), [(f"{kind}.", f"Any action: {_title(kind)}"), *actions] if len(actions) > 1 else actions)
        for kind, actions in groups.items()
    ]


def _title(kind: str) -> str:
    text = noun_of(kind)
    return text[0].upper() + text[1:]


def _select(label: str, empty: str, choices: Any) -> forms.ChoiceField:
    return forms.ChoiceField(
        required=False, label=label, choices=[("", empty), *choices], widget=UnfoldAdminSelectWidget
    )


def _text(label: str, placeholder: str, **attrs: str) -> forms.CharField:
    attrs = {"placeholder": placeholder, "autocomplete": "off", "spellcheck": "false", **attrs}
    return forms.CharField(
        required=False, label=label, max_length=_MAX_TEXT, widget=UnfoldAdminTextInputWidget(attrs=attrs)
    )


def _moment(label: str) -> forms.DateTimeField:
    """Return a field for a time in UTC, which is the time zone of the server."""
    widget = UnfoldAdminTextInputWidget()
    widget.input_type = "datetime-local"  # the browser's own control
    return forms.DateTimeField(required=False, label=label, widget=widget)


class EventFilter(forms.Form):
    """The filters in the URL of the audit list. ``first`` are always shown, and the others under "More filters"."""

    since = _select("Time", "Any time", _RANGE_TITLES.items())
    actor = _text("Actor", "E-mail, name or id", list="audit-actors")
    action = _select("Action", "Any action", _phrases())
    people = _select("Done by", "Anyone", [("yes", "People")])
    start = _moment("From (UTC)")
    until = _moment("Until (UTC)")
    kind = _select("Resource", "Any resource", sorted(((kind, _title(kind)) for kind in RESOURCES), key=itemgetter(1)))
    resource = _text("Resource id", "01990a5c-…")
    request = _text("Request id", "From an error page or a log")
    outcome = _select("Outcome", "Any outcome", _OUTCOMES.items())
    first: Final = ("since", "actor", "action", "people")

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.GET, auto_id="audit-%s")
        self._request = request
        self.is_valid()
        self.given: Mapping[str, Any] = {name: value for name, value in self.cleaned_data.items() if value}

    @property
    def has_more(self) -> bool:
        """Whether a filter under "More filters" is set or invalid."""
        return not (self.given.keys() | self.errors.keys()) <= set(self.first)

    @property
    def always_shown(self) -> list[forms.BoundField]:
        """The fields above "More filters"."""
        return [self[name] for name in self.first]

    @property
    def others(self) -> list[forms.BoundField]:
        """The fields under "More filters"."""
        return [self[name] for name in self.fields if name not in self.first]

    def describe(self) -> list[tuple[str, str, str]]:
        """Return the name, label and value of each filter that is set."""
        found = []
        for name, value in self.given.items():
            field = self.fields[name]
            text = exact_time(value) if isinstance(value, datetime) else str(value)
            if isinstance(field, forms.ChoiceField):
                options = _flat(field.choices)
                text = options.get(str(value), text)
            found.append((name, str(field.label), text))
        return found

    def narrow(self, rows: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        """Keep the events that match all filters; none if a filter is invalid."""
        if self.errors:
            return rows.none()
        given = self.given
        conditions = [Q(**{column: given[name]}) for name, column in _COLUMNS.items() if name in given]
        if "people" in given:
            conditions.append(Q(actor_kind="user"))
        if action := given.get("action"):
            of_kind = [each for each in PHRASES if each.startswith(action)]
            conditions.append(Q(action__in=of_kind) if action.endswith(".") else Q(action=action))
        if "actor" in given:
            conditions.append(self._actor_condition(given["actor"]))
        if conditions:
            rows = rows.filter(self._every_organization(), *conditions)
        return _in_time(rows, self._earliest(), given.get("until"))

    def _earliest(self) -> datetime | None:
        """Return the later one of the two lower bounds of the time; None if neither is set."""
        hours = _RANGES.get(self.given.get("since", ""))
        bounds = [self.given.get("start"), hours and timezone.now() - timedelta(hours=hours)]
        return max(filter(None, bounds), default=None)

    def _actor_condition(self, text: str) -> Q:
        """Return the condition that the actor has this id, e-mail address or name.

        ``SERVICE`` is the name of the service itself. Of the other actors, only API keys and agents are found by name,
        which may follow "key" or "agent", as in ``suggest_actors``.
        """
        if text.casefold() == SERVICE.casefold():
            return Q(actor_kind="system")
        organizations = listed_rows(self._request, Organization).order_by().values("pk")
        environments = listed_rows(self._request, Environment).order_by().values("pk")
        named = (
            User.objects.filter(email__iexact=text),
            OrganizationKey.objects.filter(organization__in=organizations, name__in=[text, text.removeprefix("key ")]),
            Agent.objects.filter(environment__in=environments, name__in=[text, text.removeprefix("agent ")]),
        )
        ids = [pk for rows in named for pk in rows.order_by().values_list("pk", flat=True)[:_SUGGESTED]]
        return Q(actor_id__in=[text, *map(str, ids)])

    def _every_organization(self) -> Q:
        """Return a condition that holds for all events, and with which PostgreSQL can use the indexes.

        The first column of most indexes is the organization. Without a scope, an installation operator's rows are not
        limited to organizations.
        """
        if not console_user_of(self._request).is_superuser or list_scope_of(self._request) is not None:
            return Q()
        everyone = list(Organization.objects.order_by().values_list("pk", flat=True))
        return Q(organization__in=everyone) | Q(organization=None)

    def suggest_actors(self, rows: QuerySet[AuditEvent]) -> list[str]:
        """Return the actors of the newest of these events, sorted by name."""
        newest = rows.order_by("-id").values_list("actor_kind", "actor_display")[:_SUGGESTED]
        return sorted({SERVICE if kind == "system" else name for kind, name in newest} - {""})


_COLUMNS: Final = {"kind": "resource_kind", "resource": "resource_id", "request": "request_id", "outcome": "outcome"}


def _flat(choices: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for value, text in choices:
        found.update(dict(text) if isinstance(text, list) else {str(value): str(text)})
    return found


def _in_time(rows: QuerySet[AuditEvent], start: datetime | None, until: datetime | None) -> QuerySet[AuditEvent]:
    """Keep the events at or after ``start`` and before ``until``. The ids, which contain the time, are indexed."""
    if start is not None:
        rows = rows.filter(pk__gte=smallest_uuid7(_clamp(start) - _SLACK), timestamp__gte=start)
    if until is not None:
        rows = rows.filter(pk__lt=smallest_uuid7(_clamp(until) + _SLACK), timestamp__lt=until)
    return rows


def _clamp(moment: datetime) -> datetime:
    """Return the moment, moved to between the years 2000 and 9000, so that ids and arithmetic can represent it."""
    return min(max(moment, datetime(2000, 1, 1, tzinfo=UTC)), datetime(9000, 1, 1, tzinfo=UTC))
