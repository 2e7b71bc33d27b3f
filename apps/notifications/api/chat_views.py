"""Chat webhooks and their deliveries."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.notifications.api import commands as c
from apps.notifications.api.chat_serializers import ChatDeliverySerializer, ChatWebhookSerializer
from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services.chat import webhooks
from apps.tenancy.access import OrganizationRoles
from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.models import Environment, Organization, Project
from apps.tenancy.permissions import GRANTS, Permission
from apps.tenancy.services import organizations
from apps.tenancy.webhook_events import Outcome
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import ID, Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, flag_parameter, id_parameter
from byteor_cloud.errors import Forbidden, InvalidInput, NotFound, PreconditionFailed

P = Permission


def managed_by(roles: OrganizationRoles) -> Q:
    """Return the condition for chat webhooks that a caller with these roles manages.

    Organization admins manage all of them, and project admins those of their projects.
    """
    if P.MANAGE_ORG_MEMBERSHIPS in roles.permissions():
        return Q()
    managed = {pk for pk, role in roles.projects.items() if P.MANAGE_PROJECT in GRANTS[role]}
    condition = Q(project__in=managed)
    if roles.org is not None and P.MANAGE_PROJECT in GRANTS[roles.org]:
        # A role in a project overrides any role in the organization except org_admin, which is handled above.
        condition |= Q(project__isnull=False) & ~Q(project__in=roles.projects.keys() - managed)
    return condition


class _ChatViewSet(OrganizationViewSet):
    """Base of the views of chat webhooks. Callers need the permission in the organization or in one of its projects."""

    tag = Tag.WEBHOOKS

    @property
    def granted_permissions(self) -> frozenset[Permission]:
        """The caller's permissions in the organization or in any of its projects."""
        return self.roles.permissions().union(*(GRANTS[role] for role in self.roles.projects.values()))

    def managed_webhooks(self) -> QuerySet[ChatWebhook]:
        """Return the chat webhooks that the caller manages."""
        found: QuerySet[ChatWebhook] = ChatWebhook.objects.filter(
            managed_by(self.roles),
            organization=self.organization,
            project__deleted_at=None,
            environment__deleted_at=None,
        )
        return found


class ChatWebhookViewSet(ListModelMixin, CreateMixin, RetrieveMixin, UpdateMixin, DestroyMixin, _ChatViewSet):
    """The organization's chat webhooks, which send messages about events to Slack or Mattermost."""

    queryset = ChatWebhook.objects.select_related("organization", "project", "environment__project__organization")
    serializer_class = ChatWebhookSerializer
    filters = {
        **BY_CREATION,
        "project_id": id_parameter("project_id"),
        "environment_id": id_parameter("environment_id"),
        "enabled": flag_parameter(
            "enabled",
            description="If true, returns only enabled chat webhooks. If false, returns only disabled chat webhooks.",
        ),
    }
    operations = {
        "list": Operation(
            "listChatWebhooks",
            P.MANAGE_PROJECT,
            "List chat webhooks",
            "Returns the chat webhooks that the caller manages, newest first, without their URLs. Organization admins "
            "manage all chat webhooks, and project admins those of their projects.",
        ),
        "create": Operation(
            "createChatWebhook",
            P.MANAGE_PROJECT,
            "Create a chat webhook",
            "Creates a chat webhook, which sends messages about events to an incoming webhook of a Slack or Mattermost "
            "server. The chat webhook receives the events of the whole organization, of a project, or of an "
            "environment. Only organization admins can create a chat webhook for the whole organization.",
            example={
                "name": "#deployments",
                "format": "slack",
                "url": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
                "events": ["approval.needed", "rollout.stopped"],
                "project_id": ID,
            },
        ),
        "retrieve": Operation(
            "getChatWebhook", P.MANAGE_PROJECT, "Get a chat webhook", "Returns the chat webhook without its URL."
        ),
        "update": Operation(
            "updateChatWebhook",
            P.MANAGE_PROJECT,
            "Update a chat webhook",
            "Changes the fields in the body and keeps all others. Enabling a disabled chat webhook resumes its "
            "deliveries.",
            example={"events": ["*"]},
        ),
        "destroy": Operation(
            "deleteChatWebhook",
            P.MANAGE_PROJECT,
            "Delete a chat webhook",
            "Deletes the chat webhook and its delivery log. Pending messages are not sent.",
            errors=(PreconditionFailed,),
        ),
    }
    commands = (c.test,)

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk__in=self.managed_webhooks().values("pk"))

    def perform_create(self, data: dict[str, Any]) -> ChatWebhook:
        scope = self._find_scope(data.pop("project_id", None), data.pop("environment_id", None))
        return webhooks.create(scope=scope, actor=self.actor, **data)

    def _find_scope(self, project_id: UUID | None, environment_id: UUID | None) -> Organization | Project | Environment:
        """Return the scope that the body names.

        Raises Forbidden if the caller may not manage the scope's chat webhooks. Raises InvalidInput if the scope is
        not in the organization, if it is not in the project that the body names, or if the caller cannot see it.
        """
        if project_id is None and environment_id is None:
            if P.MANAGE_ORG_MEMBERSHIPS not in self.roles.permissions():
                detail = (
                    "Only organization admins can create a chat webhook for the whole organization. Set `project_id`."
                )
                raise Forbidden(detail)
            return self.organization
        scope: Project | Environment | None
        if environment_id is None:
            name, scope = "project", organizations.find_project(self.organization, project_id)
        else:
            name, rows = "environment", Environment.objects.live().select_related("project__organization")
            rows = rows.filter(pk=environment_id, project__organization=self.organization)
            scope = (rows if project_id is None else rows.filter(project=project_id)).first()
        project = scope.project if isinstance(scope, Environment) else scope
        if scope is None or not (held := self.roles.permissions(project)):
            parent = "organization" if project_id is None or environment_id is None else "project"
            raise InvalidInput.at(f"/{name}_id", f"This {parent} has no {name} with this id.", code="does_not_exist")
        if P.MANAGE_PROJECT not in held:
            raise Forbidden(f"Your role does not permit this operation in this {name}.")
        return scope

    def perform_update(self, row: ChatWebhook, data: dict[str, Any]) -> ChatWebhook:
        values = {name: value for name, value in data.items() if name not in {"project_id", "environment_id"}}
        return webhooks.update(row, values, actor=self.actor, expected_revision=self.expected_revision)

    def perform_destroy(self, row: ChatWebhook) -> None:
        webhooks.delete(row, actor=self.actor, expected_revision=self.expected_revision)


class ChatDeliveryViewSet(ListModelMixin, _ChatViewSet):
    """The deliveries of messages to a chat webhook in the last 30 days."""

    queryset = ChatDelivery.objects.select_related("event")
    serializer_class = ChatDeliverySerializer
    filters = {**BY_CREATION, "status": choice_parameter(Outcome, "status")}
    operations = {
        "list": Operation(
            "listChatDeliveries",
            P.MANAGE_PROJECT,
            "List deliveries of a chat webhook",
            "Returns the deliveries of messages to this chat webhook with their latest attempts, newest first. "
            "Deliveries are kept for 30 days.",
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.managed_webhooks().filter(pk=self.kwargs["id"]).exists():
            raise NotFound("There is no resource at this URL.")
        return queryset.filter(webhook=self.kwargs["id"])
