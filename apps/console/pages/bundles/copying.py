"""The act that copies a config bundle to another environment of the project."""

from __future__ import annotations

from django import forms
from django.db.models import QuerySet
from unfold.widgets import UnfoldAdminSelectWidget

from apps.console.frame.acts import Act, ActContext
from apps.console.frame.columns import page_url
from apps.console.frame.forms import ActForm
from apps.console.frame.next_steps import NextStep
from apps.releases.models import ConfigBundle
from apps.releases.services import bundle_copies
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from byteor_cloud.errors import NotFound

_NAMED = 10  # missing secrets whose names the warning lists


def _others(bundle: ConfigBundle) -> QuerySet[Environment]:
    """Return the other environments of the project, in their order. A person's role is the same in all of them."""
    here = bundle.environment
    found: QuerySet[Environment] = Environment.objects.live().filter(project=here.project).exclude(pk=here.pk)
    return found.order_by("position")


class _EnvironmentForm(ActForm):
    conflicts = {"name_taken": "environment"}
    environment = forms.ChoiceField(widget=UnfoldAdminSelectWidget)

    def offer(self, row: ConfigBundle, held: frozenset[P]) -> None:
        choices = [(str(pk), f"{name} ({posture})") for pk, name, posture in _others(row).values_list(*_COLUMNS)]
        self.fields["environment"].choices = choices  # type: ignore[attr-defined]  # a choice field
        following = _others(row).filter(position__gt=row.environment.position).values_list("pk", flat=True).first()
        self.fields["environment"].initial = following and str(following)


_COLUMNS = ("pk", "name", "posture")


def _copy(row: ConfigBundle, context: ActContext) -> ConfigBundle:
    environment = _others(row).select_related("project").filter(pk=context.values["environment"]).first()
    if environment is None:
        raise NotFound("The environment has been deleted in the meantime.")
    bundle, _ = bundle_copies.copy_config_bundle(
        environment=environment, from_config_bundle_id=row.pk, actor=context.actor
    )
    return bundle


DEPLOY = NextStep("Deploy it", lambda row: page_url(ConfigBundle, "deploy", row.pk), P.OPERATE_ENVIRONMENT)
COPY_BUNDLE = Act(
    name="copy",
    label="Copy to environment",
    done="{} is available in the environment",
    explain="The version and the configuration are copied to another environment of the project. Nothing is deployed. "
    "If the other environment already has a config bundle with this name and configuration, that config bundle is "
    "shown instead. The values of secrets are not copied: each agent reads them on its own host.",
    run=_copy,
    needs=P.OPERATE_ENVIRONMENT,
    icon="content_copy",
    form=_EnvironmentForm,
    applies=lambda row: _others(row).exists(),
    next_step=DEPLOY,
)


def describe_missing_secrets(bundle: ConfigBundle) -> str:
    """Return a warning about the copy's secrets to which no other config bundle of its environment refers.

    Returns "" if there are none.
    """
    names = bundle_copies.find_missing_secrets(bundle)
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    these, them = ("this secret", "it") if len(names) == 1 else ("these secrets", "them")
    return (
        f"No other config bundle of this environment refers to {these}: {', '.join(names[:_NAMED])}{more}. Make sure "
        f"that the hosts of the environment's agents have {them}."
    )
