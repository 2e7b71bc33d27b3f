"""Approvals."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, Q, QuerySet

from apps.releases.api import commands as c
from apps.releases.api.serializers.approvals import ApprovalSerializer, DecideSerializer
from apps.releases.models import Approval
from apps.releases.services import approvals
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ApprovalStatus
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import CreateMixin, ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import ID, Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, id_parameter
from byteor_cloud.errors import Conflict


class ApprovalViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Approvals. ``create`` records a decision."""

    tag = Tag.APPROVALS
    queryset = Approval.objects.select_related("deployment", "environment__project").prefetch_related("decisions")
    serializer_class = ApprovalSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(ApprovalStatus, "status"),
        "deployment_id": id_parameter(condition=lambda pk: Q(deployment__id=pk) | Q(rollout=pk)),
        "replay_id": id_parameter("replay_id"),
    }
    operations = {
        "list": Operation(
            "listApprovals",
            P.VIEW_ENVIRONMENT,
            "List approvals",
            "Returns the environment's approvals with their decisions, newest first.",
        ),
        "create": Operation(
            "decideApproval",
            P.VIEW_ENVIRONMENT,
            "Approve or deny",
            "Records the caller's decision on a deployment or an execute replay, and returns the approval. One denial "
            "denies the request. When enough people have approved, the approval credential is issued, and the "
            "deployment or replay can start. A break-glass deployment can start before it is approved. Only a "
            "person can decide, not an API key. The requester may approve only if `allow_self_approval` is true. If "
            "the approval has `reviewers`, only they can decide. Otherwise, the caller needs the permission "
            "`environment:operate`. A decision on a wave must contain `wave` and the `digest` of the wave's report. No "
            "credential is issued for a wave.",
            body=DecideSerializer,
            responses={201: ApprovalSerializer},
            example={"deployment_id": ID, "decision": "approve"},
        ),
        "retrieve": Operation(
            "getApproval",
            P.VIEW_ENVIRONMENT,
            "Get an approval",
            "Returns the approval with its decisions. The `credential` is null for callers without the permission "
            "`environment:operate`.",
        ),
    }
    commands = (c.revoke, c.remind)

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Also read the config bundle, for its warnings. Lists do not show warnings."""
        return queryset if self.action == "list" else queryset.select_related("deployment__config_bundle__version")

    def perform_create(self, data: dict[str, Any]) -> Model:
        approval = data.pop("approval")
        if approval is None:
            raise Conflict(
                "This deployment itself has no approval to decide on. To decide on one of its waves, send wave.",
                code="approval.not_needed",
            )
        decided = approvals.decide(approval, user=self.principal.user, actor=self.actor, **data)
        # Read the row again, because the response needs its decisions.
        return self.get_queryset().get(pk=decided.pk)  # type: ignore[no-any-return]  # rows of a view set are Any
