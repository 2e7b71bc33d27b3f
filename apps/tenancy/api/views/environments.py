"""Environments."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet

from apps.tenancy.api.base import EnvironmentViewSet, ProjectViewSet
from apps.tenancy.api.serializers.resources import EnvironmentSerializer
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from apps.tenancy.policy import Posture
from apps.tenancy.services import organizations
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter
from byteor_cloud.errors import PreconditionFailed


class EnvironmentCollectionViewSet(ListModelMixin, CreateMixin, ProjectViewSet):
    """The project's environments."""

    tag = Tag.ENVIRONMENTS
    single_operation = "getEnvironment"
    queryset = Environment.objects.live()
    serializer_class = EnvironmentSerializer
    filters = {**BY_NAME, "posture": choice_parameter(Posture, "posture")}
    operations = {
        "list": Operation(
            "listEnvironments", P.VIEW_PROJECT, "List environments", "Returns the project's environments, newest first."
        ),
        "create": Operation(
            "createEnvironment",
            P.MANAGE_PROJECT,
            "Create an environment",
            "Creates an environment. A setting that is not in the body gets the value in the organization's "
            "`default_environment_settings` or, if there is none, the posture's default. The posture cannot be changed "
            "later. In `staging` and `prod`, approval, replay, replay gate or freeze rules looser than these defaults "
            "require `org_admin`.",
            example={"name": "canary", "posture": "staging"},
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Model:
        return organizations.create_environment(
            project=self.project, may_loosen=self.roles.org is Role.ORG_ADMIN, actor=self.actor, **data
        )


class EnvironmentDetailViewSet(RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """One environment."""

    tag = Tag.ENVIRONMENTS
    queryset = Environment.objects.live()
    serializer_class = EnvironmentSerializer
    lookup_url_kwarg = "env_id"
    operations = {
        "retrieve": Operation(
            "getEnvironment",
            P.VIEW_ENVIRONMENT,
            "Get an environment",
            "Returns the environment with all its settings, including defaults.",
        ),
        "update": Operation(
            "updateEnvironment",
            P.MANAGE_ENVIRONMENT,
            "Update an environment",
            "Changes the fields in the body and keeps all others. The same applies to the keys of `settings`. "
            "Loosening the approval, replay, replay gate or freeze rules of a `staging` or `prod` environment requires "
            "`org_admin`.",
            example={"settings": {"heartbeat_interval_s": 10}},
        ),
        "destroy": Operation(
            "deleteEnvironment",
            P.MANAGE_PROJECT,
            "Delete an environment",
            "Deletes the environment and everything in it. The environment disappears immediately for all callers, and "
            "the keys of its agents are rejected. The audit events are kept.",
            errors=(PreconditionFailed,),
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.environment.pk)

    def perform_update(self, row: Environment, data: dict[str, Any]) -> Model:
        return organizations.update_environment(
            row,
            data,
            may_loosen=self.roles.org is Role.ORG_ADMIN,
            actor=self.actor,
            expected_revision=self.expected_revision,
        )

    def perform_destroy(self, row: Environment) -> None:
        organizations.delete(row, kind="environment", actor=self.actor, expected_revision=self.expected_revision)
