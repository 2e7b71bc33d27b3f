"""Deployments, their agents and their timeline."""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request

from apps.releases.api import commands as c
from apps.releases.api.serializers.deployments import (
    DeploymentAgentSerializer,
    DeploymentSerializer,
    TimelineEntrySerializer,
)
from apps.releases.models import AgentFailure, Deployment, DeploymentAgent, TimelineEntry
from apps.releases.services import deployments, evidence, progress
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from byteor.engine.canonical import sha256
from byteor.engine.machines import AgentProgress, DeploymentStatus
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import CreateMixin, ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import ID, Operation, Tag
from byteor_cloud.api.parameters import (
    choice_parameter,
    flag_parameter,
    id_parameter,
    integer_parameter,
    line_parameter,
)
from byteor_cloud.errors import Conflict, NotFound, QuotaExceeded


class DeploymentViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Deployments of config bundles to agents."""

    tag = Tag.DEPLOYMENTS
    queryset = Deployment.objects.select_related("config_bundle__version", "approval", "environment__project")
    serializer_class = DeploymentSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(DeploymentStatus, "status"),
        "pipeline": line_parameter("pipeline"),
        "is_current": flag_parameter(
            "is_current",
            description="If true, returns only current deployments. If false, returns only deployments that are not "
            "current.",
        ),
        "config_bundle_id": id_parameter("config_bundle_id"),
    }
    operations = {
        "list": Operation(
            "listDeployments",
            P.VIEW_ENVIRONMENT,
            "List deployments",
            "Returns the environment's deployments, newest first.",
        ),
        "create": Operation(
            "createDeployment",
            P.OPERATE_ENVIRONMENT,
            "Create a deployment",
            "Creates a deployment of a config bundle to a target. Its first status is `pending_approval` if the "
            "environment requires approval and neither `approval` nor `break_glass` is sent, and `approved` otherwise. "
            "Returns the error `quota.stored_bytes` if the deploy bundle would exceed the organization's quota. The "
            "quota is not checked again when the bundle is built.",
            errors=(Conflict, QuotaExceeded),
            example={"config_bundle_id": ID, "target": {"all": True}},
        ),
        "retrieve": Operation(
            "getDeployment",
            P.VIEW_ENVIRONMENT,
            "Get a deployment",
            "Returns the deployment with its status, the progress of its agents, and why agents failed.",
        ),
    }
    commands = (c.abort, c.pause, c.resume, c.retry, c.next_wave, c.change_reviewers)

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        counted: QuerySet[Any] = queryset.annotate(by_progress=progress.of_each_deployment())
        return counted

    def perform_create(self, data: dict[str, Any]) -> Model:
        deployment = deployments.create_deployment(
            environment=self.environment,
            reviewer_ids=data.pop("reviewers", None),
            is_org_admin=self.roles.org is Role.ORG_ADMIN,
            actor=self.actor,
            **data,
        )
        # Read the row again, because the response needs its counts.
        return self.get_queryset().get(pk=deployment.pk)  # type: ignore[no-any-return]  # rows of a view set are Any

    @Operation(
        "exportDeploymentEvidence",
        P.OPERATE_ENVIRONMENT,
        responses={(200, "application/x-tar"): OpenApiTypes.BINARY},
        errors=(Conflict,),
    )
    def evidence(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Export the evidence of a deployment.

        Returns a tar with the deploy bundle, its envelope, the key set and an unsigned summary. If the deployment has
        an approval, the tar also contains the approval record and, if it was issued, the approval credential. These two
        prove who approved this bundle for this environment. Unless the replay gate was off, the tar also contains the
        signed statements of why the gate let the deployment start (`gate.json`) and, unless the regression had been
        deleted, how the configuration was tested (`test-result.json`). If waves were approved or denied, the tar also
        contains the signed statements of these decisions (`wave-approvals.json`). `byteor-verify` checks the tar
        offline. Returns 409 if the bundle has not been built.
        """
        deployment = self.get_object()
        archive = evidence.build_archive(deployment)
        response = HttpResponse(archive, content_type="application/x-tar")
        response["Content-Disposition"] = f'attachment; filename="deployment-{deployment.pk}-evidence.tar"'
        response["ETag"] = f'"{sha256(archive)}"'
        return response


class _DeploymentChildViewSet(ListModelMixin, EnvironmentViewSet):
    """Base of the lists below ``…/deployments/{id}``. Looks up the deployment inside the environment."""

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        deployment = Deployment.objects.filter(pk=self.kwargs["id"], environment=self.environment)
        if not deployment.exists():
            raise NotFound("This environment has no such deployment.")
        return queryset.filter(deployment=self.kwargs["id"])


_HAS_FAILURE = Q(Exists(AgentFailure.objects.filter(part=OuterRef("pk"))))


class DeploymentAgentViewSet(_DeploymentChildViewSet):
    """The enlisted agents of a deployment and their progress."""

    tag = Tag.DEPLOYMENTS
    queryset = (
        DeploymentAgent.objects.select_related("agent", "deployment__config_bundle")
        .prefetch_related("failures")
        .annotate(reported_tuning=Q(tuning__isnull=False))
    )
    serializer_class = DeploymentAgentSerializer
    filters = {
        "progress": choice_parameter(AgentProgress, "progress"),
        "wave": integer_parameter(0, 1000, "wave"),
        "has_failure": flag_parameter(
            condition=lambda has_failure: _HAS_FAILURE if has_failure else ~_HAS_FAILURE,
            description="If true, returns only agents with a `failure`. If false, returns only agents without one.",
        ),
    }
    operations = {
        "list": Operation(
            "listDeploymentAgents",
            P.VIEW_ENVIRONMENT,
            "List the agents of a deployment",
            "Returns the agents that are enlisted in the deployment, with their wave and progress.",
        ),
    }


class TimelineViewSet(_DeploymentChildViewSet):
    """The timeline of a deployment, newest entry first."""

    tag = Tag.DEPLOYMENTS
    queryset = TimelineEntry.objects.all()
    serializer_class = TimelineEntrySerializer
    operations = {
        "list": Operation(
            "listDeploymentTimeline",
            P.VIEW_ENVIRONMENT,
            "List the timeline of a deployment",
            "Returns the events of the deployment, newest first. Events of finished deployments that are not current "
            "are deleted after a year.",
        ),
    }
