"""The settings of an environment: a summary, panels, and the act that edits them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django import forms
from rest_framework import serializers
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.console.frame.acts import Act, ActContext
from apps.console.frame.columns import with_note
from apps.console.frame.forms import ActForm
from apps.console.frame.rows import Column, Row, RowsField
from apps.console.pages.people.choosing import describe_reviewers, name_choice, offer_people, people_field
from apps.tenancy.api.serializers.settings import EnvironmentSettingsSerializer, time_zones
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import ReplayPolicy
from apps.tenancy.services import organizations
from byteor.engine import freeze
from byteor.engine.counted import count_of
from byteor.engine.explain.wording import because
from byteor.engine.replay_gate import GateMode

_PREVIEW, _SHOWN = timedelta(days=28), 20
_ANNOUNCED = timedelta(days=7)  # how long before a freeze window its banner appears
_REPLAYS = {
    ReplayPolicy.DISABLED: "no replays",
    ReplayPolicy.DRY_RUN_ONLY: "replays without side effects",
    ReplayPolicy.ALLOWED: "replays with and without side effects",
}

_GATES = {
    GateMode.OFF: "no tests",
    GateMode.WARN: "tests each deployment and shows the result",
    GateMode.REQUIRE: "tests each deployment and can block it",
}
_GATE_PHRASES = {
    GateMode.OFF: "",
    GateMode.WARN: "the replay gate tests each deployment but blocks none; ",
    GateMode.REQUIRE: "the replay gate tests each deployment and can block it; ",
}
_LABELS = {
    "allow_self_approval": "Allow self-approval",
    "max_in_flight_deployments": "Maximum deployments in flight",
    "artifact_retention_days": "Artifact retention, in days",
    "replay_gate_min_fixtures": "Replay gate: required verdicts",
    "max_work_increase_percent": "Replay gate: permitted work increase, in percent",
}
# Texts that replace the API's descriptions.
_MEANINGS = {
    "freeze_windows": "Periods during which no deployment starts, unless its request overrides the window. "
    "The reason is shown to people whose deployments wait. Without an offset, start and end are in the window's "
    "time zone. Repeated windows keep their local time in this time zone.",
    "replay_policy": "Which replays are permitted. By default, only dev permits replays with side effects.",
    "approvals_required": "Whether a deployment needs approval. By default, only deployments to prod need approval.",
    "allow_self_approval": "Whether people may approve their own requests. After break-glass, they never may. By "
    "default, only dev permits this.",
    "reviewers": "The people who may decide on approvals, whatever their role. If nobody is chosen here or for the "
    "deployment, everybody who may operate the environment can decide.",
    "replay_gate": "Whether the fixtures of the pipeline are tested for each deployment, and whether the result can "
    "block the deployment. An organization admin can override the gate for a single deployment.",
    "replay_gate_min_fixtures": "The minimum number of results that the test of a deployment needs. Results of "
    "fixtures that could not be tested do not count. Used only if the replay gate is required.",
    "max_work_increase_percent": "How much more work a new configuration may need for the same records than what "
    "agents run now. If empty, there is no limit. Used only if the replay gate is required.",
}


def describe_policy(environment: Environment) -> str:
    """Return a sentence about what a deployment to the environment needs, and about replays."""
    settings, release = environment.effective_settings, environment.effective_settings.release
    people = "one person" if release.required_approvals == 1 else f"{release.required_approvals} people"
    own = ", who may be the requester" if release.required_approvals == 1 else ", one of whom may be the requester"
    who = own if release.allow_self_approval else " other than the requester"
    who += f", among {count_of(len(settings.reviewers), 'reviewer')}" if settings.reviewers else ""
    consent = f"need the approval of {people}{who}" if release.approvals_required else "need no approval"
    in_flight = release.max_in_flight_deployments
    return (
        f"Deployments {consent}; {'one runs' if in_flight == 1 else f'{in_flight} run'} at a time;"
        f" {_GATE_PHRASES[release.replay_gate]}{_REPLAYS[settings.replay_policy]} are permitted."
    )


def describe_freeze(windows: Iterable[freeze.FreezeWindow], now: datetime) -> list[tuple[str, str, list[str]]]:
    """Return the banner of the freeze window that is open now, otherwise of the next one within 7 days, if any.

    A banner is a tuple of its tone, title and lines.
    """
    windows = list(windows)
    found = freeze.last_open_window(windows, now)
    if found is not None:
        window, end = found
        return [
            (
                "warn",
                "Frozen",
                [f"Without an override, no deployment starts until {end:%Y-%m-%d %H:%M} UTC{because(window.reason)}."],
            )
        ]
    coming = freeze.occurrences(windows, now, now + _ANNOUNCED)
    if not coming:
        return []
    start, end, window = coming[0]
    times = f"between {start:%a %d %b, %H:%M} and {end:%a %d %b, %H:%M %Z}"
    return [("", "Next freeze window", [f"Without an override, no deployment starts {times}{because(window.reason)}."])]


class _SettingsForm(ActForm):
    """A form with a field for each setting of the API. The help texts are ``_MEANINGS`` or the API's descriptions."""

    rules = EnvironmentSettingsSerializer

    def offer(self, row: Environment, held: frozenset[P]) -> None:
        self._before = row.settings_with_defaults
        for name, rule in EnvironmentSettingsSerializer().fields.items():
            self.fields[name] = _field(name, rule, _meaning(name))
            self.fields[name].label, self.fields[name].initial = _label(name), self._before[name]
        offer_people(self.fields["reviewers"], row.project, self._before["reviewers"])

    def body(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request body of the API, in which null removes a limit."""
        rules = EnvironmentSettingsSerializer().fields
        removed = {name: None for name, rule in rules.items() if rule.allow_null and cleaned.get(name) is None}
        windows = [self._window(row) for row in cleaned["freeze_windows"]]
        return {**super().body(cleaned), **removed, "freeze_windows": windows}

    def _window(self, row: Row) -> Mapping[str, Any]:
        """Return the freeze window of a row. An unchanged window keeps the form in which it is stored.

        Browsers write the time 18:00:00 as 18:00.
        """
        window = {name: text for name, text in row.items() if text or name != "recurrence"}
        try:
            meant = freeze.FreezeWindow.from_stored(window)
        except ValueError:
            return window  # the API's serializer reports the error
        stored: list[dict[str, Any]] = self._before["freeze_windows"]
        return next((each for each in stored if freeze.FreezeWindow.from_stored(each) == meant), window)

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the name of the field for a JSON pointer into the body or into the environment, or None.

        The second value names the wrong reviewer, or says where in the field the error is.
        """
        name, rest = super().field_of(pointer.removeprefix("/settings"))
        if isinstance(field := self.fields.get(name or ""), RowsField):
            return name, field.locate(rest)
        return (name, name_choice(self[name], rest)) if name == "reviewers" else (name, rest)

    def clean(self) -> dict[str, Any]:
        """Keep only the changed settings in ``values``, so that settings that follow a default keep following it."""
        cleaned = super().clean()
        self.values = {name: value for name, value in self.values.items() if value != self._before[name]}
        return cleaned


def _label(name: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    text = name.removesuffix("_s").replace("_", " ").replace("ttl", "lifetime").capitalize()
    return f"{text}, in seconds" if name.endswith("_s") else text


def _meaning(name: str) -> str:
    return _MEANINGS.get(name) or EnvironmentSettingsSerializer.descriptions[name].replace("`", "")


def _field(name: str, rule: Any, meaning: str) -> forms.Field:
    match rule:
        case serializers.BooleanField():
            return forms.BooleanField(required=False, help_text=meaning, widget=UnfoldBooleanWidget)
        case serializers.IntegerField():
            return forms.IntegerField(
                min_value=rule.min_value, max_value=rule.max_value, help_text=meaning, required=not rule.allow_null,
                widget=UnfoldAdminIntegerFieldWidget,
            )  # fmt: skip
        case serializers.ChoiceField():
            texts: Mapping[Any, str] = _GATES if name == "replay_gate" else _REPLAYS
            choices = [(value, f"{value}: {text}") for value, text in texts.items()]
            return forms.ChoiceField(choices=choices, help_text=meaning, widget=UnfoldAdminSelectWidget)
        case serializers.ListField():
            return people_field(meaning)
    return RowsField(_WINDOW, noun="freeze window", help_text=meaning)


def _edge(value: str) -> forms.Widget:
    """Return the input for the start or the end of a freeze window: a text field if browsers cannot edit the time."""
    is_plain = not value or _WALL_CLOCK.fullmatch(value)
    widget: forms.Widget = UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"} if is_plain else {})
    return widget


_WALL_CLOCK = re.compile(r"[0-9-]{10}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?")  # a time without an offset or fractions
_REPEATS = {"": "No", freeze.Recurrence.DAILY: "Every day", freeze.Recurrence.WEEKLY: "Every week"}
_WINDOW = {
    "start": Column("Start", _edge),
    "end": Column("End", _edge),
    "time_zone": Column(
        "Time zone", lambda _: UnfoldAdminTextInputWidget(), "UTC", lambda: dict.fromkeys(sorted(time_zones()), "")
    ),
    "recurrence": Column("Repeats", lambda _: UnfoldAdminSelectWidget(choices=[*_REPEATS.items()])),
    "reason": Column("Reason", lambda _: UnfoldAdminTextInputWidget(attrs={"maxlength": 200})),
}


def _edit(row: Environment, context: ActContext) -> object:
    may_loosen = P.MANAGE_ORG_MEMBERSHIPS in context.held  # only org_admin and superusers have this permission
    changed = organizations.update_environment(
        row, {"settings": dict(context.values)}, may_loosen=may_loosen, actor=context.actor
    )
    return changed if context.values else False


EDIT_SETTINGS = Act(
    name="settings",
    label="Edit settings",
    also="freeze window policy reviewers approvals",
    done="Settings of {} changed",
    explain="Deployments that have already been requested keep their rules for approvals and the replay gate, their "
    "agent timeout and their in-flight limit. Pending approvals of replays also keep their rules. Freeze windows also "
    "apply to deployments that have already been requested. Outside of dev environments, only an organization admin or "
    "an installation operator can loosen the rules for approvals, the replay gate, replays and freeze windows.",
    run=_edit,
    needs=P.MANAGE_ENVIRONMENT,
    icon="tune",
    form=_SettingsForm,
)


def settings_panel(environment: Environment) -> dict[str, Any]:
    """Return the panel of all settings except the freeze windows."""
    shown = {name: value for name, value in environment.settings_with_defaults.items() if name != "freeze_windows"}
    texts = {name: str(value).lower() for name, value in shown.items()}
    texts["reviewers"] = describe_reviewers(shown["reviewers"])
    return {
        "title": "Settings",
        "columns": ("Setting", "Value"),
        "rows": [(with_note(_label(name), _meaning(name)), text) for name, text in texts.items()],
    }


def freeze_panel(environment: Environment, now: datetime) -> dict[str, Any]:
    """Return the panel of the first freeze windows of the next weeks, with a row for each repetition."""
    until = now + _PREVIEW
    coming = freeze.occurrences(environment.effective_settings.freeze_windows, now, until)
    return {
        "title": f"Freeze windows of the next {_PREVIEW.days} days",
        "columns": ("Starts", "Ends", "Repeats", "Reason"),
        "rows": [
            (f"{start:%a %d %b %Y, %H:%M %Z}", f"{end:%a %d %b, %H:%M %Z}", window.recurrence or "-", window.reason)
            for start, end, window in coming[:_SHOWN]
        ],
        "empty": "No freeze window is open or planned in this time.",
    }
