"""Projects."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet

from apps.tenancy.api.base import OrganizationViewSet, ProjectViewSet
from apps.tenancy.api.serializers.resources import ProjectSerializer
from apps.tenancy.models import Project
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import organizations
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.errors import PreconditionFailed


class ProjectCollectionViewSet(ListModelMixin, CreateMixin, OrganizationViewSet):
    """The organization's projects that the caller may see."""

    tag = Tag.PROJECTS
    queryset = Project.objects.live()
    serializer_class = ProjectSerializer
    filters = BY_NAME
    operations = {
        "list": Operation(
            "listProjects",
            P.VIEW_ORG,
            "List projects",
            "Returns the organization's projects, newest first. Includes only projects that the caller may see.",
        ),
        "create": Operation(
            "createProject",
            P.CREATE_PROJECT,
            "Create a project",
            "Creates a project in the organization.",
            example={"name": "markets"},
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.roles.org else queryset.filter(pk__in=self.roles.projects)

    def perform_create(self, data: dict[str, Any]) -> Model:
        return organizations.create_project(organization=self.organization, actor=self.actor, **data)


class ProjectDetailViewSet(RetrieveMixin, UpdateMixin, DestroyMixin, ProjectViewSet):
    """One project."""

    tag = Tag.PROJECTS
    queryset = Project.objects.live()
    serializer_class = ProjectSerializer
    lookup_url_kwarg = "project_id"
    operations = {
        "retrieve": Operation("getProject", P.VIEW_PROJECT, "Get a project", "Returns the project."),
        "update": Operation(
            "updateProject",
            P.MANAGE_PROJECT,
            "Update a project",
            "Changes the fields in the body and keeps all others.",
            example={"name": "markets-eu"},
        ),
        "destroy": Operation(
            "deleteProject",
            P.MANAGE_PROJECT,
            "Delete a project",
            "Deletes the project and everything in it. The project disappears immediately for all callers, and the "
            "keys of its agents are rejected. The audit events are kept.",
            errors=(PreconditionFailed,),
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.project.pk)

    def perform_update(self, row: Project, data: dict[str, Any]) -> Model:
        return organizations.update_project(row, data, actor=self.actor, expected_revision=self.expected_revision)

    def perform_destroy(self, row: Project) -> None:
        organizations.delete(row, kind="project", actor=self.actor, expected_revision=self.expected_revision)
