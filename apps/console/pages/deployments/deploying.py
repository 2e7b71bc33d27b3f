"""The form that requests a deployment, and the preview of its agents, waves, approval and obstacles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

from django import forms
from django.db.models import Q, QuerySet
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.artifacts.services import fixtures
from apps.artifacts.services.regression_details import read_groups
from apps.console.frame.personal import CountRows
from apps.console.frame.rows import Column, Row, RowsField
from apps.console.pages.deployments.forms import ApiForm
from apps.console.pages.deployments.phrases import (
    HOLDS,
    agent_count,
    describe_strategy,
    describe_target,
    describe_warnings,
)
from apps.console.pages.people.choosing import name_choice, offer_people, people_field
from apps.console.pages.regressions.page import label_group
from apps.fleet.models import Agent
from apps.fleet.services import facts
from apps.fleet.services.selection import select_agents
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import admission, bundles, reviewers
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Membership
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role
from byteor.engine.counted import count_of
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.replay_gate import GateMode
from byteor.engine.rollout import Hold, Strategy
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.database.together import read_together

NAMED = 10  # agents or people that are listed by name
MAX_NAMES = 1_000
MAX_LABELS = 20  # labels that have a checkbox. Others are entered as rows.
MAX_EXPLAINED = 20  # groups of differences that the form has a field for
_INVITE = "Invite more people."
_DIGITS = 3  # the maximum number of digits of a percentage; Python refuses to parse numbers with over 4,300 digits
PRESETS: dict[str, dict[str, Any]] = {
    "waves": {"kind": "waves", "percents": [5, 25, 100]},
    "slow": {"kind": "waves", "percents": [1, 10, 50, 100], "pause_s": 600},
    "all_at_once": {"kind": "all_at_once"},
}
_STRATEGIES = [
    ("waves", "Waves of 5 %, 25 % and 100 %"),
    ("slow", "Slow waves: 1 %, 10 %, 50 % and 100 %, with pauses of ten minutes"),
    ("all_at_once", "All agents at the same time"),
    ("own", "Custom waves and holds"),
]
_HOLDS: dict[str, str] = {"": "Starts after the pause"} | {str(hold): f"Waits {what}" for hold, what in HOLDS.items()}
_PERCENT = {"type": "number", "min": 1, "max": 100}


def _text(value: str) -> forms.Widget:
    widget: forms.Widget = UnfoldAdminTextInputWidget()
    return widget


_WAVE = {
    "percent": Column("Percent of agents", lambda _: UnfoldAdminTextInputWidget(attrs=_PERCENT)),
    "hold": Column("Start", lambda _: UnfoldAdminSelectWidget(choices=[*_HOLDS.items()])),
}
# The initial values of the form.
FIRST: dict[str, Any] = {
    "target": "all",
    "strategy": "waves",
    "waves": [{"percent": str(percent), "hold": ""} for percent in PRESETS["waves"]["percents"]],
    "auto_rollback": "on",
}


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
        help_text=f"An agent must have all chosen labels. At most the {MAX_LABELS} most common labels are listed.",
    )
    agents = forms.CharField(
        required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), label="Agent names",
        help_text=f"One name per line, at most {MAX_NAMES:,}.",
    )  # fmt: skip
    strategy = forms.ChoiceField(choices=_STRATEGIES, widget=UnfoldAdminSelectWidget)
    waves = RowsField(
        _WAVE, noun="wave",
        help_text="The cumulative percentage of agents after each wave. The percentages must increase and end at 100. "
        "The first wave starts with the deployment. Later waves can wait until somebody starts them, or until "
        "people approve the results so far.",
    )  # fmt: skip
    pause_s = forms.IntegerField(
        required=False,
        min_value=0,
        widget=UnfoldAdminIntegerFieldWidget,
        label="Pause between waves, in seconds",
    )
    failure_threshold_percent = forms.IntegerField(
        required=False, min_value=0, max_value=100, widget=UnfoldAdminIntegerFieldWidget,
        label="Failure threshold, in percent of a wave",
        help_text="If empty, the deployment stops when one agent fails.",
    )  # fmt: skip
    auto_rollback = forms.BooleanField(
        required=False, widget=UnfoldBooleanWidget, label="Roll back automatically",
        help_text="If possible, the deployment is rolled back when too many agents fail, a wave is denied, or the "
        "configuration becomes known bad.",
    )  # fmt: skip
    take_over = forms.BooleanField(
        required=False, widget=UnfoldBooleanWidget, label="Take over agents that run another pipeline"
    )
    start_at = forms.DateTimeField(
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
        label="Start time, in UTC", help_text="If empty, the deployment starts as soon as possible.",
    )  # fmt: skip
    reviewers = people_field(
        "The people who may decide on the approvals of this deployment and of its waves, whatever their role."
    )
    note = forms.CharField(required=False, max_length=2000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))
    override_freeze = forms.CharField(
        required=False, max_length=2000, widget=UnfoldAdminTextInputWidget,
        label="Reason for deploying during a freeze window",
    )  # fmt: skip
    override_replay_gate = forms.CharField(
        required=False, max_length=2000, widget=UnfoldAdminTextInputWidget,
        label="Reason for overriding the replay gate",
        help_text="The fixtures are tested, but the result does not block this deployment.",
    )  # fmt: skip

    def __init__(
        self, bundle: ConfigBundle, data: Mapping[str, Any] | None = None, *, is_org_admin: bool, user_id: UUID | None
    ) -> None:
        super().__init__(FIRST if data is None else data)
        self._bundle = bundle
        self._offer_reviewers(user_id)
        if data is None:
            self.data = {**FIRST, "reviewers": self.fields["reviewers"].initial}
        self._mode = bundle.environment.effective_settings.release.replay_gate
        self._explained: dict[str, str] = {}  # ids of groups by the name of the field that explains them
        self._add_explanations()
        counted = facts.count_labels(bundle.environment)
        pairs = [(f"{key}={value}", count) for key, values in counted.items() for value, count in values.items()]
        most = sorted(pairs, key=lambda pair: -pair[1])[:MAX_LABELS]
        self.fields["labels"].choices = [  # type: ignore[attr-defined]  # a choice field
            (pair, f"{pair} ({agent_count(count)})") for pair, count in sorted(most)
        ]
        if not most:
            del self.fields["labels"]
            self.fields["target"].help_text = "The agents of this environment have no labels."
        if len(pairs) > MAX_LABELS:
            values = {value: key for key, values in counted.items() for value in values}
            keys = {key: agent_count(sum(values.values())) for key, values in counted.items()}
            self.fields["other_labels"] = RowsField(
                {
                    "key": Column("Label", _text, completions=lambda: keys),
                    "value": Column("Value", _text, completions=lambda: values),
                },
                noun="label", label="Other labels", help_text="The agents must have these labels as well.",
            )  # fmt: skip
        if not is_org_admin:
            del self.fields["override_freeze"]
        if not is_org_admin or self._mode is not GateMode.REQUIRE:
            del self.fields["override_replay_gate"]

    def _offer_reviewers(self, user_id: UUID | None) -> None:
        """Offer the environment's reviewers or, if it has none, people of the project (see ``offer_people``)."""
        settings, field = self._bundle.environment.effective_settings, self.fields["reviewers"]
        field.help_text += (
            " Only the environment's reviewers can be chosen."
            if settings.reviewers
            else " If nobody is chosen, everybody who may operate the environment can decide."
        )
        project = self._bundle.environment.project
        offer_people(
            field, project, settings.reviewers, only_chosen=bool(settings.reviewers),
            viewer=user_id,
            excluded=None if settings.release.allow_self_approval else user_id,
        )  # fmt: skip

    def _add_explanations(self) -> None:
        """Add a field for each group of ``find_known_groups``, unless the replay gate is off."""
        if self._mode is GateMode.OFF:
            return
        for group in find_known_groups(self._bundle):
            self._explained[name := f"explain-{group['id']}"] = group["id"]
            self.fields[name] = forms.CharField(
                required=False, max_length=2000, widget=UnfoldAdminTextInputWidget, label=label_group(group)
            )  # fmt: skip

    def body(self) -> dict[str, Any] | None:
        """Return the API's request body for the deployment. For an invalid target, add an error and return None."""
        data = self.cleaned_data
        target = self._target(data)
        if target is None:
            return None
        rollout = dict(PRESETS.get(data["strategy"]) or _custom_waves(data["waves"]))
        if data["strategy"] == "own" and data.get("pause_s"):
            rollout["pause_s"] = data["pause_s"]
        rollout |= {
            "auto_rollback": data["auto_rollback"],
            "failure_threshold_percent": data["failure_threshold_percent"] or 0,
        }
        reasons = {name: data.get(name) for name in ("override_freeze", "override_replay_gate")}
        self._sent = [name for name in self._explained if data.get(name)]
        explain = [{"group": self._explained[name], "text": data[name]} for name in self._sent]
        return {
            "config_bundle_id": str(self._bundle.pk),
            "target": target,
            "strategy": rollout,
            "note": data["note"],
            "take_over": data["take_over"],
            **{name: {"reason": reason} for name, reason in reasons.items() if reason},
            **({"explain": explain} if explain else {}),
            **({"start_at": data["start_at"].astimezone(UTC).isoformat()} if data["start_at"] else {}),
            **({"reviewers": data["reviewers"]} if self._sends_reviewers(rollout) else {}),
        }

    def _sends_reviewers(self, rollout: dict[str, Any]) -> bool:
        """Return whether the request names reviewers.

        It does if the deployment or one of its waves needs approval, and if the environment has reviewers or the person
        chose some.
        """
        settings = self._bundle.environment.effective_settings
        needs_approval = settings.release.approvals_required or Hold.APPROVAL in rollout.get("holds", ())
        return needs_approval and bool(settings.reviewers or self.cleaned_data["reviewers"])

    def _target(self, data: dict[str, Any]) -> dict[str, Any] | None:
        match data["target"]:
            case "all":
                return {"all": True}
            case "selector":
                chosen = [label.partition("=")[::2] for label in data.get("labels", ())]
                chosen += [(row["key"], row["value"]) for row in data.get("other_labels", ())]
                if len(dict(chosen)) == len(chosen) > 0:
                    return {"selector": dict(chosen)}
                self.add_error(
                    "labels" if "labels" in self.fields else "target",
                    "Choose only one value for each key." if chosen else "Choose at least one label.",
                )
            case _:
                return self._named_agents({name.strip() for name in data.get("agents", "").splitlines()} - {""})
        return None

    def _named_agents(self, names: set[str]) -> dict[str, Any] | None:
        if not 0 < len(names) <= MAX_NAMES:
            self.add_error("agents", f"Enter the names of 1 to {MAX_NAMES:,} agents.")
            return None
        mine = Agent.objects.enrolled().filter(environment=self._bundle.environment, name__in=names)
        found = dict(mine.values_list("name", "pk"))
        if unknown := sorted(names - found.keys()):
            self.add_error("agents", f"The environment has no agents with these names: {', '.join(unknown[:5])}.")
            return None
        return {"agents": [str(pk) for pk in found.values()]}

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the name of the field for a JSON pointer into the body, or None.

        The second value names the wrong reviewer, or says where in the field the error is.
        """
        if pointer.startswith("/explain/"):
            return self._sent[int(pointer.split("/")[2])], ""
        name, rest = super().field_of(pointer)
        inner = rest.partition("/")[0]
        if name == "reviewers":
            return name, name_choice(self[name], rest)
        if name == "strategy" and (column := _COLUMNS.get(inner)):
            at = rest.partition("/")[2]
            return "waves", cast("RowsField", self.fields["waves"]).locate(f"{at}/{column}" if at else "")
        return (inner, "") if name == "strategy" and inner in self.fields else (name, rest)

    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return the fields by heading, in the order of the page."""
        headings = {
            "Target": ("target", "labels", "other_labels", "agents", "take_over"),
            "Rollout": (
                "strategy", "waves", "pause_s", "failure_threshold_percent", "auto_rollback", "start_at",
            ),
            "Approval": ("reviewers",),
            "Request": ("note", "override_freeze", "override_replay_gate"),
            "Why these differences are wanted": tuple(self._explained),
        }  # fmt: skip
        found = [
            (heading, [self[name] for name in names if name in self.fields]) for heading, names in headings.items()
        ]
        return [(heading, fields) for heading, fields in found if fields]


_COLUMNS = {"percents": "percent", "holds": "hold"}  # the column of a wave by its name in the API


def _custom_waves(rows: list[Row]) -> dict[str, Any]:
    """Return the strategy with these waves. The first wave has no hold, because it starts with the deployment.

    A percentage that is not a number of at most 3 digits stays a text, which the API refuses.
    """
    texts = [row["percent"].strip(" %") for row in rows]
    percents = [int(text) if text.isdecimal() and len(text) <= _DIGITS else text for text in texts]
    holds = [row["hold"] or None if at else None for at, row in enumerate(rows)]
    return {"kind": "waves", "percents": percents, **({"holds": holds} if any(holds) else {})}


@dataclass(frozen=True, slots=True)
class Outlook:
    """The preview of a deployment: what would happen if it were requested now."""

    target: str
    agents: str
    strategy: str
    waves: list[tuple[int, int, str]]  # number, percent, and the agents that the wave adds
    consent: str
    start: str  # empty without a start time
    warnings: list[str]
    obstacles: list[str]
    gate: str
    count: int  # agents of the target
    lacks_people: bool  # whether inviting people is necessary for the approval


def preview(bundle: ConfigBundle, values: dict[str, Any], requester: Actor, *, is_org_admin: bool) -> Outlook:
    """Return the preview. ``values`` are the validated arguments for ``deployments.create_deployment``.

    Raises InvalidInput for an invalid start time or invalid reviewers.
    """
    environment, target, strategy = bundle.environment, values["target"], values["strategy"]
    start_at, policy = values.get("start_at"), environment.effective_settings.release
    admission.check_start_at(start_at, None)
    chosen = reviewers.choose(
        environment, values.get("reviewer_ids"), policy=policy,
        is_needed=policy.approvals_required or strategy.needs_approval,
        may_decide_own=policy.allow_self_approval, requester=requester.user_id, may_loosen=is_org_admin,
    )  # fmt: skip
    obstacles = admission.find_obstacles(
        environment, bundle, target,
        take_over=values.get("take_over", False), override_freeze="override_freeze" in values, start_at=start_at,
    )  # fmt: skip
    fixture_rows = fixtures.live(environment, bundle.version.name)
    is_tested = policy.replay_gate is not GateMode.OFF
    names, roles, counted = read_together(
        _named(select_agents(environment, target)),
        roles_of(environment, chosen),
        Environment.objects.filter(pk=environment.pk).values_list(CountRows(fixture_rows.values("pk")), flat=True)
        if is_tested
        else Environment.objects.none(),
    )
    count, named = _describe_agents(names)
    consent = describe_consent(environment, requester.display, chosen, for_waves=strategy.needs_approval, roles=roles)
    return Outlook(
        describe_target(target),
        named,
        describe_strategy(strategy),
        _waves(strategy, count),
        consent,
        "" if start_at is None else f"{start_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC at the earliest",
        describe_warnings(bundles.warnings_of(bundle)),
        [each.detail for each in obstacles],
        describe_gate(bundle, sum(counted), is_overridden="override_replay_gate" in values),
        count,
        consent.endswith(_INVITE),
    )


def find_known_groups(bundle: ConfigBundle) -> list[dict[str, Any]]:
    """Return the most frequent groups of the config bundle's newest regression that finished without an error."""
    tested = Regression.objects.filter(
        environment=bundle.environment, config_bundle=bundle, finished_at__isnull=False, error=None
    )
    newest = without_large(tested).order_by("-pk").first()
    return [] if newest is None else read_groups(newest, first=0, count=MAX_EXPLAINED, with_payloads=False)


def describe_gate(bundle: ConfigBundle, count: int, *, is_overridden: bool) -> str:
    """Return what the replay gate will do with a deployment of the config bundle; "" if the gate is off.

    ``count`` is the number of the pipeline's fixtures that have not expired.
    """
    environment, pipeline = bundle.environment, bundle.version.name
    policy = environment.effective_settings.release
    if policy.replay_gate is GateMode.OFF:
        return ""
    tested = f"The pipeline {pipeline} has no fixtures that have not expired, so nothing is tested."
    if count:
        named = f"{count_of(count, 'fixture')} of the pipeline {pipeline} {'is' if count == 1 else 'are'} tested"
        tested = f"{named}. Results are compared with golden results or with what most of the target's agents run."
    if policy.replay_gate is GateMode.WARN:
        return f"{tested} The result is shown, and does not block the deployment." if count else tested
    if is_overridden:
        return f"{tested} You override the replay gate: the result does not block the deployment."
    rules = ["every difference is accepted"] if count else []
    if needed := policy.replay_gate_min_fixtures:
        verb = "is" if needed == 1 else "are"
        rules.append(f"there {verb} at least {count_of(needed, 'verdict')} other than “not tested”")
    if count and policy.max_work_increase_percent is not None:
        rules.append(f"the work increases by at most {policy.max_work_increase_percent}%")
    if not rules:
        return tested
    *others, last = rules
    conditions = f"{', '.join(others)} and {last}" if others else last
    return f"{tested} The deployment can start only if {conditions}."


def _named(agents: QuerySet[Agent]) -> QuerySet[Agent, tuple[str, int]]:
    """Return the names of the first ``NAMED`` agents, each with the number of all agents."""
    every = CountRows(agents.order_by().values("pk"))
    return agents.order_by("pk").values_list("name", every)[:NAMED]


def _describe_agents(rows: Sequence[tuple[str, int]]) -> tuple[int, str]:
    """Return the number of agents, and a phrase with the number and the first names. ``rows`` are from ``_named``."""
    count, names = max((count for _, count in rows), default=0), [name for name, _ in rows]
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return count, f"{agent_count(count)}: {', '.join(names)}{more}" if names else "No agents."


def _waves(strategy: Strategy, count: int) -> list[tuple[int, int, str]]:
    bounds = (0, *strategy.wave_bounds(count))
    sizes = (after - before for before, after in pairwise(bounds))
    return [
        (number, percent, agent_count(size))
        for number, (percent, size) in enumerate(zip(strategy.percents, sizes, strict=True), 1)
    ]


def describe_consent(
    environment: Environment,
    requester: str,
    reviewer_ids: Collection[str] = (),
    *,
    for_waves: bool = False,
    roles: Iterable[tuple[str, UUID | None, str]] | None = None,
    policy: ReleasePolicy | None = None,
) -> str:
    """Return sentences about the approval: whether it is needed, from how many people, and who can give it.

    ``for_waves`` states whether a wave of the deployment needs approval. ``roles`` are the rows of ``roles_of``, if the
    caller has read them. ``policy`` is that of a deployment that exists; by default, the environment's current one.
    """
    policy = policy or environment.effective_settings.release
    if not policy.approvals_required and not for_waves:
        return "No approval is needed. The deployment starts as soon as nothing blocks it."
    what = "deployment needs" if policy.approvals_required else "waves that wait for approval need"
    if policy.approvals_required and for_waves:
        what = "deployment, and each wave that waits for approval, needs"
    found = _approvers(roles_of(environment, reviewer_ids) if roles is None else roles, reviewer_ids)
    people = [each for each in found if policy.allow_self_approval or each != requester]
    shown = ", ".join(people[:NAMED]) + (f" and {len(people) - NAMED} more" if len(people) > NAMED else "")
    needed = policy.required_approvals
    if len(people) < needed:
        those = "1 person" if needed == 1 else f"{needed} people"
        able = f"only {shown} can approve" if shown else "nobody can approve"
        advice = "" if reviewer_ids else f" {_INVITE}"  # only reviewers can approve, so more people would not help
        return f"The {what} the approval of {those}, but {able}.{advice}"
    return f"The {what} the approval of {needed} of these people: {shown}."


def approvers(environment: Environment, reviewer_ids: Collection[str] = ()) -> list[str]:
    """Return the e-mail addresses of the active members who may decide on approvals in the environment, sorted.

    They are the reviewers who can see the environment, or without reviewers everybody who may operate it.
    """
    return _approvers(roles_of(environment, reviewer_ids), reviewer_ids)


def roles_of(environment: Environment, reviewer_ids: Collection[str] = ()) -> QuerySet[Membership, Any]:
    """Return the memberships of people who may be approvers, as rows of e-mail address, project id and role."""
    project = environment.project
    theirs = Membership.objects.filter(
        Q(project=None) | Q(project=project), organization=project.organization_id, user__is_active=True
    )
    if reviewer_ids:
        theirs = theirs.filter(user_id__in=list(reviewer_ids))
    return theirs.values_list("user__email", "project_id", "role")


def _approvers(rows: Iterable[tuple[str, UUID | None, str]], reviewer_ids: Collection[str]) -> list[str]:
    roles: dict[str, dict[bool, Role]] = {}
    for email, project_id, role in rows:
        roles.setdefault(email, {})[project_id is not None] = Role(role)
    effective = {email: effective_role(by.get(False), by.get(True)) for email, by in roles.items()}
    needed = Permission.VIEW_ENVIRONMENT if reviewer_ids else Permission.OPERATE_ENVIRONMENT
    return sorted(email for email, role in effective.items() if role and needed in GRANTS[role])
