"""The acts that roll back deployments: one for a single deployment, optionally with a proof, and one for several."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from apps.artifacts.api import commands
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import proven_rollbacks
from apps.console.frame import Act, ActContext
from apps.console.frame.acts import Refusal
from apps.console.frame.columns import page_url
from apps.console.frame.forms import ActForm
from apps.console.pages.deployments.previews import preview_rollback
from apps.releases.models import Deployment
from apps.tenancy.permissions import Permission as P
from byteor_cloud.errors import UnprovenRollback

_CAPTURES = 20  # newest captures that the form offers


class _RollBackForm(ActForm):
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))
    artifact = forms.TypedChoiceField(
        required=False,
        empty_value=None,
        label="Prove with a capture",
        widget=UnfoldAdminSelectWidget,
        help_text="The capture is first replayed on each configuration that the rollback would restore. When these "
        "replays have finished, send the form again. The rollback starts only if all of them have succeeded, or if "
        "you choose to roll back without the proof.",
    )
    proceed = forms.BooleanField(required=False, label="Roll back without the proof", widget=UnfoldBooleanWidget)

    def offer(self, row: Deployment, held: frozenset[P]) -> None:
        """Offer the newest captures of the deployment's pipeline. Without one, remove the fields about the proof."""
        captures = {str(each.pk): each for each in proven_rollbacks.find_captures(row, _CAPTURES)}
        if not captures:
            del self.fields["artifact"], self.fields["proceed"]
            return
        field: Any = self.fields["artifact"]
        field.choices = [("", "No proof"), *((key, _describe(each)) for key, each in captures.items())]
        field.coerce = captures.__getitem__


def _describe(capture: Artifact) -> str:
    return f"{capture.agent}, {capture.captured_at:%Y-%m-%d %H:%M:%S} UTC, {capture.version}"


def _roll_back(row: Deployment, context: ActContext) -> Deployment | Refusal:
    values = context.values
    made = commands.rollback.run(
        row,
        reason=values["reason"],
        artifact=values.get("artifact"),
        proceed=values.get("proceed", False),
        actor=context.actor,
    )
    if isinstance(made, UnprovenRollback):
        return Refusal(made.detail, page_url(Replay, "change", made.members["replay_id"]), "Open the replay")
    started: Deployment = made
    return started


ROLL_BACK = Act.of(
    commands.rollback,
    name="roll_back",
    label="Roll back",
    also="rollback revert undo",
    done="Rollback of {} started",
    explain="Each agent that should run this deployment's bundle is offered the bundle that it ran before. If that is "
    "not possible, the agent is offered the bundle of the deployment that the rollback restores. The configuration "
    "becomes known bad in this environment.",
    preview=preview_rollback,
    run=_roll_back,
    form=_RollBackForm,
    icon="undo",
    dangerous=True,
)
ROLL_BACK_SEVERAL = Act.of(
    commands.rollback,
    name="roll_back_several",
    label="Roll back",
    done="Rollback of {} started",
    explain=ROLL_BACK.explain,
    icon="undo",
    comment="required",
    on_page=False,
    dangerous=True,
)
