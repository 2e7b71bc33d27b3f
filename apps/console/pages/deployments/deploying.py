"""The page that requests a deployment: whom it reaches, in which waves, who must approve it, and what prevents it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django import forms
from django.db.models import Q
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.console.pages.deployments.forms import ApiForm
from apps.console.pages.deployments.phrases import agent_count, describe_strategy, describe_target, describe_warnings
from apps.fleet.models import Agent
from apps.fleet.services import facts
from apps.fleet.services.selection import select_agents
from apps.releases.models import ConfigBundle
from apps.releases.services import admission, bundles
from apps.tenancy.models import Environment, Membership
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role
from byteor.engine.rollout import Strategy
from byteor.engine.target import Target

NAMED = 10
MAX_NAMES = 1_000
MAX_LABELS = 50
_DIGITS = 3  # of a percentage; Python refuses to read numbers of thousands of digits
PRESETS: dict[str, dict[str, Any]] = {
    "waves": {"kind": "waves", "percents": [5, 25, 100]},
    "slow": {"kind": "waves", "percents": [1, 10, 50, 100], "pause_s": 600},
    "all_at_once": {"kind": "all_at_once"},
}
_STRATEGIES = [
    ("waves", "Waves of 5 %, 25 % and 100 %"),
    ("slow", "Slow waves: 1 %, 10 %, 50 % and 100 %, ten minutes apart"),
    ("all_at_once", "All agents at once"),
    ("own", "Own waves, as below"),
]
# What the form is filled in with at first.
FIRST = {"target": "all", "strategy": "waves", "auto_rollback": "on"}


class Deploy(ApiForm):
    """The form for a new deployment of a config bundle."""

    target = forms.ChoiceField(
        choices=[
            ("all", "All agents of the environment"),
            ("selector", "Agents with labels"),
            ("agents", "Agents by name"),
        ],
        widget=UnfoldAdminSelectWidget,
    )
    labels = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="An agent must have all of the chosen labels. Offered are those that the most agents have.",
    )
    agents = forms.CharField(
        required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), label="Names of agents",
        help_text=f"One name in each line, at most {MAX_NAMES:,}.",
    )  # fmt: skip
    strategy = forms.ChoiceField(choices=_STRATEGIES, widget=UnfoldAdminSelectWidget)
    percents = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, label="Own waves",
        help_text="The share of the agents that each wave reaches, in percent, such as 10, 50, 100.",
    )  # fmt: skip
    pause_s = forms.IntegerField(
        required=False, min_value=0, widget=UnfoldAdminIntegerFieldWidget, label="Pause between own waves in seconds"
    )
    failure_threshold_percent = forms.IntegerField(
        required=False, min_value=0, max_value=100, widget=UnfoldAdminIntegerFieldWidget,
        label="Share of a wave that may fail, in percent", help_text="Empty: one failed agent ends the deployment.",
    )  # fmt: skip
    auto_rollback = forms.BooleanField(required=False, widget=UnfoldBooleanWidget, label="Roll back when it fails")
    take_over = forms.BooleanField(
        required=False, widget=UnfoldBooleanWidget, label="Take over agents that run another pipeline"
    )
    note = forms.CharField(required=False, max_length=2000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))
    override_freeze = forms.CharField(
        required=False, max_length=2000, widget=UnfoldAdminTextInputWidget,
        label="Reason to deploy although a freeze window is open",
    )  # fmt: skip

    def __init__(self, bundle: ConfigBundle, *args: Any, is_org_admin: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bundle = bundle
        counted = facts.count_labels(bundle.environment)
        pairs = [(f"{key}={value}", count) for key, values in counted.items() for value, count in values.items()]
        most = sorted(pairs, key=lambda pair: -pair[1])[:MAX_LABELS]
        self.fields["labels"].choices = [  # type: ignore[attr-defined]  # a choice field
            (pair, f"{pair} ({agent_count(count)})") for pair, count in sorted(most)
        ]
        if not most:
            del self.fields["labels"]
        if not is_org_admin:
            del self.fields["override_freeze"]

    def body(self) -> dict[str, Any] | None:
        """Return the body with which the API would create the deployment, or None if agents are named wrongly."""
        data = self.cleaned_data
        target = self._target(data)
        if target is None:
            return None
        rollout = dict(PRESETS.get(data["strategy"]) or {"kind": "waves", "percents": _numbers(data["percents"])})
        if data["strategy"] == "own" and data.get("pause_s"):
            rollout["pause_s"] = data["pause_s"]
        rollout |= {
            "auto_rollback": data["auto_rollback"],
            "failure_threshold_percent": data["failure_threshold_percent"] or 0,
        }
        reason = data.get("override_freeze")
        return {
            "config_bundle_id": str(self._bundle.pk),
            "target": target,
            "strategy": rollout,
            "note": data["note"],
            "take_over": data["take_over"],
            **({"override_freeze": {"reason": reason}} if reason else {}),
        }

    def _target(self, data: dict[str, Any]) -> dict[str, Any] | None:
        match data["target"]:
            case "all":
                return {"all": True}
            case "selector":
                chosen = [label.partition("=")[::2] for label in data.get("labels", ())]
                if len(dict(chosen)) == len(chosen) > 0:
                    return {"selector": dict(chosen)}
                self.add_error(
                    "labels" if "labels" in self.fields else "target",
                    "Choose one value of each key." if chosen else "Choose at least one label.",
                )
            case _:
                return self._named_agents({name.strip() for name in data.get("agents", "").splitlines()} - {""})
        return None

    def _named_agents(self, names: set[str]) -> dict[str, Any] | None:
        if not 0 < len(names) <= MAX_NAMES:
            self.add_error("agents", f"Name 1 to {MAX_NAMES:,} agents.")
            return None
        mine = Agent.objects.enrolled().filter(environment=self._bundle.environment, name__in=names)
        found = dict(mine.values_list("name", "pk"))
        if unknown := sorted(names - found.keys()):
            self.add_error("agents", f"The environment has no such agents: {', '.join(unknown[:5])}.")
            return None
        return {"agents": [str(pk) for pk in found.values()]}

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the field that a pointer into the body belongs to, and the rest of the pointer."""
        name, rest = super().field_of(pointer)
        inner = rest.partition("/")[0]
        return (inner, "") if name == "strategy" and inner in self.fields else (name, rest)

    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return the fields in the order of the page, by headings."""
        headings = {
            "Target": ("target", "labels", "agents", "take_over"),
            "Rollout": (
                "strategy", "percents", "pause_s", "failure_threshold_percent", "auto_rollback"
            ),
            "Request": ("note", "override_freeze"),
        }  # fmt: skip
        return [(heading, [self[name] for name in names if name in self.fields]) for heading, names in headings.items()]


def _numbers(text: str) -> list[Any]:
    """Return the numbers of a list that is written with commas. What is no number stays, so that the API refuses it."""
    parts = (each.strip(" %") for each in text.split(","))
    return [int(part) if part.isdecimal() and len(part) <= _DIGITS else part for part in parts]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would happen if the deployment were requested now."""

    target: str
    agents: str
    strategy: str
    waves: list[tuple[int, int, str]]  # number, percent, and how many agents it adds
    consent: str
    warnings: list[str]
    obstacles: list[str]


def foresee(bundle: ConfigBundle, asked: dict[str, Any], requester: str) -> Outlook:
    """Return what would happen. ``asked`` are the checked arguments of ``deployments.create_deployment``."""
    environment, target, strategy = bundle.environment, asked["target"], asked["strategy"]
    obstacles = admission.find_obstacles(
        environment, bundle, target,
        take_over=asked.get("take_over", False), override_freeze="override_freeze" in asked,
    )  # fmt: skip
    count, named = _agents(environment, target)
    return Outlook(
        describe_target(target),
        named,
        describe_strategy(strategy),
        _waves(strategy, count),
        describe_consent(environment, requester),
        describe_warnings(bundles.warnings_of(bundle)),
        [each.detail for each in obstacles],
    )


def _agents(environment: Environment, target: Target) -> tuple[int, str]:
    agents = select_agents(environment, target)
    count, names = agents.count(), list(agents.order_by("pk").values_list("name", flat=True)[:NAMED])
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return count, f"{agent_count(count)}: {', '.join(names)}{more}" if names else "No agent."


def _waves(strategy: Strategy, count: int) -> list[tuple[int, int, str]]:
    bounds = (0, *strategy.wave_bounds(count))
    sizes = (after - before for before, after in pairwise(bounds))
    return [
        (number, percent, agent_count(size))
        for number, (percent, size) in enumerate(zip(strategy.percents, sizes, strict=True), 1)
    ]


def describe_consent(environment: Environment, requester: str) -> str:
    """Say whether the environment requires approval, of how many people, and who can give it."""
    policy = environment.effective_settings.release
    if not policy.approvals_required:
        return "It needs no approval and begins at once."
    people = [each for each in approvers(environment) if policy.allow_self_approval or each != requester]
    shown = ", ".join(people[:NAMED]) + (f" and {len(people) - NAMED} more" if len(people) > NAMED else "")
    needed = policy.required_approvals
    if len(people) < needed:
        those = "one person has" if needed == 1 else f"{needed} people have"
        return f"It waits until {those} approved it, but only these can: {shown or 'nobody'}. Invite more people."
    return f"It waits until {'one' if needed == 1 else needed} of these people approved it: {shown}."


def approvers(environment: Environment) -> list[str]:
    """Return the addresses of people whose role permits them to approve in the environment, sorted."""
    project = environment.project
    theirs = Membership.objects.filter(
        Q(project=None) | Q(project=project), organization=project.organization_id, user__is_active=True
    )
    roles: dict[str, dict[bool, Role]] = {}
    for email, project_id, role in theirs.values_list("user__email", "project_id", "role"):
        roles.setdefault(email, {})[project_id is not None] = Role(role)
    effective = {email: effective_role(by.get(False), by.get(True)) for email, by in roles.items()}
    return sorted(e for e, role in effective.items() if role and Permission.OPERATE_ENVIRONMENT in GRANTS[role])
