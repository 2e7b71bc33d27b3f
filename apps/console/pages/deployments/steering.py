"""The acts that start the next wave and change the reviewers, and what a deployment's page shows about holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.console.frame import Act, ActContext
from apps.console.frame.columns import page_url
from apps.console.frame.forms import ActForm
from apps.console.pages.deployments.phrases import HOLDS
from apps.console.pages.deployments.previews import preview_next_wave
from apps.console.pages.deployments.waves import Wave
from apps.console.pages.people.choosing import name_choice, offer_people, people_field
from apps.releases.api import commands
from apps.releases.api.serializers.deployments import ReviewersSerializer
from apps.releases.models import Approval, Deployment
from apps.releases.services.reviewers import consents_that_count, may_decide_own
from apps.tenancy.permissions import Permission as P
from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.rollout import Hold
from byteor_cloud.database.together import Plan

_PLANNED = {Hold.MANUAL: "needs a manual start", Hold.APPROVAL: "needs approval"}

START_NEXT_WAVE = Act.of(
    commands.next_wave,
    label="Start next wave",
    done="Next wave of {} started",
    explain="The next wave starts now. A manual hold and the rest of the pause between waves are skipped.",
    preview=preview_next_wave,
    icon="skip_next",
    comment="optional",
)


class _ReviewersForm(ActForm):
    rules = ReviewersSerializer
    reviewers = people_field("The people who may decide, whatever their role.")
    reason = forms.CharField(required=False, max_length=500, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))

    def offer(self, row: Deployment, held: frozenset[P]) -> None:
        field, listed = self.fields["reviewers"], row.environment.effective_settings.reviewers
        field.help_text += (
            " Only the environment's reviewers, and people who have already approved, can be chosen."
            if listed
            else " If nobody is chosen, everybody who may operate the environment can decide."
        )
        excluded = None if may_decide_own(row) else row.requester_id
        offered = {*row.reviewers, *listed}
        offer_people(field, row.environment.project, offered, only_chosen=bool(listed), excluded=excluded)
        field.initial = [user_id for user_id in field.initial if user_id in row.reviewers]

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the name of the field for a JSON pointer into the body, or None, and the rest of the pointer.

        For the field ``reviewers``, the name of the wrong person replaces the rest of the pointer.
        """
        name, rest = super().field_of(pointer)
        return (name, name_choice(self[name], rest)) if name == "reviewers" else (name, rest)


def _change_reviewers(row: Deployment, context: ActContext) -> object:
    chosen = context.values.get("reviewers", [])
    if sorted(map(str, chosen)) == row.reviewers:
        return False
    reason = context.values.get("reason", "")
    commands.change_reviewers.run(row, reviewers=chosen, reason=reason, actor=context.actor)
    return row


CHANGE_REVIEWERS = Act.of(
    commands.change_reviewers,
    label="Change reviewers",
    done="Reviewers of {} changed",
    explain="The chosen people decide on the pending and later approvals of this deployment and its waves. If "
    "anybody is chosen, only the consents of the chosen people count.",
    icon="group",
    form=_ReviewersForm,
    run=_change_reviewers,
)


def describe_hold(
    row: Deployment, found: Sequence[Blocker], *, start: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the banner of the current hold; None without a hold.

    The banner links to the approval of the wave, if it has one, and otherwise to the form that starts the wave.
    ``start`` is the button that starts the next wave. It is None if the person cannot start the wave now, and the
    banner then has no such link.
    """
    hold = row.wave_hold
    if hold is None or hold.is_over:
        return None
    wave = hold.wave + 1
    banner: dict[str, Any] = {"text": "".join(each.detail for each in found if each.code == BlockerCode.WAVE_HOLD)}
    if hold.approval_id is not None:
        return banner | {
            "url": page_url(Approval, "change", hold.approval_id),
            "label": f"Open the approval of wave {wave}",
        }
    if start is None:
        return banner
    return banner | {
        "url": start["path"],
        "label": f"Start wave {wave}",
        "description": start["attrs"].get("title", ""),
    }


def plan_started(row: Deployment) -> Plan[Mapping[int, str]]:
    """Return the ``Plan`` for phrases about who started or approved waves, by wave number from 1.

    The result is empty if the strategy has no holds.
    """
    if not any(row.strategy.holds):
        return {}
    used = row.wave_approvals.exclude(used_at=None)
    consents = consents_that_count().filter(approval__in=used).order_by("pk")
    starts, decisions = yield [
        row.timeline.filter(event="next_wave").values_list("detail__wave", "actor"),
        consents.values_list("approval__wave", "decided_by"),
    ]
    people: dict[int, list[str]] = {}
    for wave, decided_by in decisions:
        people.setdefault((wave or 0) + 1, []).append(decided_by)
    return {
        **{wave: f"started by {actor}" for wave, actor in starts},
        **{wave: f"approved by {', '.join(each)}" for wave, each in people.items()},
    }


def describe_wave_hold(wave: Wave, started: Mapping[int, str]) -> str:
    """Return who ended the hold before a wave, or what the wave waits for or will wait for; otherwise ""."""
    if wave.hold is None:
        return ""
    if wave.number in started:
        return started[wave.number]
    if wave.state == "held":
        return f"waits {HOLDS[wave.hold]}"
    return _PLANNED[wave.hold] if wave.state in {"planned", "waiting"} else ""
