"""Acts that create organizations, create and delete projects, and create, move and delete environments."""

from __future__ import annotations

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from apps.console.frame.acts import Act, ActContext
from apps.console.frame.columns import act_url
from apps.console.frame.forms import ActForm, name_field, radio_field, slug_field
from apps.console.frame.next_steps import NextStep
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.tenancy.api.serializers.resources import (
    MAX_POSITION,
    EnvironmentSerializer,
    OrganizationSerializer,
    ProjectSerializer,
)
from apps.tenancy.models import Environment, Organization, Project, User
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import Posture
from apps.tenancy.services import organizations

_NAMED = 50  # environments whose names the form for a position lists
_POSTURES = {
    Posture.DEV: "dev: by default, deployments need no approval, and replays may perform side effects",
    Posture.STAGING: "staging: by default, deployments need no approval, and replays perform no side effects",
    Posture.PROD: "prod: by default, another person must approve each deployment, and replays perform no side effects",
}


class _OrganizationForm(ActForm):
    rules = OrganizationSerializer
    name = name_field()
    slug = slug_field()


class _ProjectForm(ActForm):
    rules = ProjectSerializer
    name = name_field()
    slug = slug_field()


class _EnvironmentForm(ActForm):
    rules = EnvironmentSerializer
    name = name_field()
    posture = radio_field(
        _POSTURES,
        initial=Posture.DEV,
        help_text="The posture cannot be changed later, but the settings can. "
        "If the organization has its own default settings, these override the defaults of the posture.",
    )


class _PositionForm(ActForm):
    position = forms.IntegerField(min_value=1, max_value=MAX_POSITION, widget=UnfoldAdminIntegerFieldWidget)

    def offer(self, row: Environment, held: frozenset[P]) -> None:
        names = list(row.project.environments.live().order_by("position").values_list("name", flat=True)[: _NAMED + 1])
        rest = ", …" if len(names) > _NAMED else ""
        self.fields["position"].initial = row.position
        self.fields["position"].help_text = f"The current order is: {', '.join(names[:_NAMED])}{rest}."


def _create_organization(row: User, context: ActContext) -> Organization:
    return organizations.create_organization(owner=context.user, actor=context.actor, **context.values)


def _create_project(row: Organization, context: ActContext) -> Project:
    return organizations.create_project(organization=row, actor=context.actor, **context.values)


def _create_environment(row: Project, context: ActContext) -> Environment:
    # The form has no settings, so it cannot loosen the defaults of the posture.
    return organizations.create_environment(project=row, may_loosen=False, actor=context.actor, **context.values)


def _move(row: Environment, context: ActContext) -> Environment:
    # A position loosens no settings.
    return organizations.update_environment(row, context.values, may_loosen=False, actor=context.actor)


def _delete(kind: str) -> Act:
    return Act(
        name="delete",
        label="Delete",
        done="{} deleted",
        explain=f"The {kind} becomes inaccessible immediately, and to its agents within a second. Everything in it is "
        "then deleted in the background. Its audit events are kept.",
        run=lambda row, context: organizations.delete(row, kind=kind, actor=context.actor),
        needs=P.MANAGE_PROJECT,
        icon="delete",
        dangerous=True,
        removes=True,
    )


CREATE_ORGANIZATION = Act(
    name="create_organization",
    label="Create organization",
    done="{} created",
    explain="You become its first administrator. Members of other organizations do not see it.",
    run=_create_organization,
    needs=None,
    only_self=True,
    icon="domain_add",
    form=_OrganizationForm,
    creates=Organization,
    # Needs no permission check, because the person has just become the organization's administrator.
    next_step=NextStep("Create a project", lambda row: act_url(row, "create_project")),
)
CREATE_PROJECT = Act(
    name="create_project",
    label="Create project",
    done="{} created",
    explain="A project contains environments. People can have a separate role in each project.",
    run=_create_project,
    needs=P.CREATE_PROJECT,
    icon="create_new_folder",
    form=_ProjectForm,
    creates=Project,
    next_step=NextStep("Create an environment", lambda row: act_url(row, "create_environment"), P.MANAGE_PROJECT),
)
CREATE_ENVIRONMENT = Act(
    name="create_environment",
    label="Create environment",
    done="{} created",
    explain="Agents are enrolled in an environment, and pipelines are deployed to it.",
    run=_create_environment,
    needs=P.MANAGE_PROJECT,
    icon="layers",
    form=_EnvironmentForm,
    creates=Environment,
    next_step=NextStep(
        "Enroll an agent", lambda row: act_url(row, CREATE_ENROLLMENT_TOKEN.name), CREATE_ENROLLMENT_TOKEN.needs
    ),
)
MOVE_ENVIRONMENT = Act(
    name="move",
    label="Move",
    done="{} moved",
    explain="The position decides where the environment is listed. The matrix of the project compares the environment "
    "with the one before it. The environments between the old and the new position move by 1.",
    run=_move,
    needs=P.MANAGE_ENVIRONMENT,
    icon="swap_vert",
    form=_PositionForm,
)
DELETE_PROJECT, DELETE_ENVIRONMENT = _delete("project"), _delete("environment")
