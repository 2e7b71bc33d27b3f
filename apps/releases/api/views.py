"""Views of config bundles, deployments and approvals, and of the offers to agents."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.models import Agent, Assignment
from apps.releases.api import operations
from apps.releases.api import serializers as s
from apps.releases.api.offered import WAIT_S, accept_report, read_offer
from apps.releases.models import (
    AgentFailure,
    Approval,
    ConfigBundle,
    Deployment,
    DeploymentAgent,
    KnownBad,
    TimelineEntry,
)
from apps.releases.services import approvals, bundles, deployments, evidence, progress, rollbacks
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.mixins import CreateMixin, ListModelMixin, RetrieveMixin
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from byteor.engine.canonical import sha256
from byteor.engine.machines import AgentProgress, ApprovalStatus, DeploymentStatus
from byteor_cloud.api.fields import StrictSerializer
from byteor_cloud.api.filters import BY_CREATION, BY_NAME
from byteor_cloud.api.parameters import (
    choice_parameter,
    flag_parameter,
    id_parameter,
    integer_parameter,
    line_parameter,
    sha256_parameter,
)
from byteor_cloud.errors import Conflict, NotFound, NotStored, QuotaExceeded, Unavailable
from byteor_cloud.storage import blobs


class ConfigBundleViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Config bundles: versions with their runtime configuration."""

    checked: bundles.NewConfiguration | None = None
    operations = operations.CONFIG_BUNDLE
    queryset = ConfigBundle.objects.select_related("version", "environment__project")
    serializer_class = s.ConfigBundleSerializer
    filters = {**BY_NAME, "version_id": id_parameter("version_id"), "config_hash": sha256_parameter("config_hash")}
    errors = {"clear": (Conflict,)}
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "create": P.OPERATE_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        "clear": P.OPERATE_ENVIRONMENT,
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        bad = KnownBad.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
        annotated: QuerySet[Any] = queryset.annotate(known_bad=Exists(bad))
        return annotated

    def prepare(self, request: Request) -> None:
        """Check the configuration. A body that is invalid in another way is left to ``create``."""
        if self.action == "create":
            with suppress(ValidationError):
                given = self.validated(request)
                given.pop("name")
                self.checked = bundles.check_configuration(given.pop("version"), **given, compute=self.compute)

    def perform_create(self, data: dict[str, Any]) -> Model:
        bundle = bundles.create_config_bundle(
            environment=self.environment, actor=self.actor, checked=self.checked, **data
        )
        return self.get_queryset().get(pk=bundle.pk)  # type: ignore[no-any-return]  # with known_bad

    @extend_schema(request=s.ReasonSerializer, responses=s.ConfigBundleSerializer)
    def clear(self, request: Request, **kwargs: Any) -> Response:
        """Allow a known bad configuration to be deployed and restored again."""
        bundle = self.get_object()
        body = s.ReasonSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        bundles.clear_known_bad(bundle, reason=body.validated_data["reason"], actor=self.actor)
        return self.represent(self.get_object())


class DeploymentViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Deployments, which bring config bundles to agents."""

    operations = operations.DEPLOYMENT
    queryset = Deployment.objects.select_related("config_bundle__version", "approval", "environment__project")
    serializer_class = s.DeploymentSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(DeploymentStatus, "status"),
        "pipeline": line_parameter("pipeline"),
        "is_current": flag_parameter("is_current"),
        "config_bundle_id": id_parameter("config_bundle_id"),
    }
    errors = {
        "create": (Conflict, QuotaExceeded),
        **dict.fromkeys(("rollback", "abort", "pause", "resume", "retry", "evidence"), (Conflict,)),
    }
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "create": P.OPERATE_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        "rollback": P.OPERATE_ENVIRONMENT,
        "abort": P.OPERATE_ENVIRONMENT,
        "pause": P.OPERATE_ENVIRONMENT,
        "resume": P.OPERATE_ENVIRONMENT,
        "retry": P.OPERATE_ENVIRONMENT,
        "evidence": P.OPERATE_ENVIRONMENT,
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        counted: QuerySet[Any] = queryset.annotate(by_progress=progress.of_each_deployment())
        return counted

    def perform_create(self, data: dict[str, Any]) -> Model:
        deployment = deployments.create_deployment(
            environment=self.environment,
            is_org_admin=self.roles.org is Role.ORG_ADMIN,
            actor=self.actor,
            **data,
        )
        return self.get_queryset().get(pk=deployment.pk)  # type: ignore[no-any-return]  # with its counts

    def _reason(self, request: Request, shape: type[StrictSerializer]) -> str:
        body = shape(data=request.data)
        body.is_valid(raise_exception=True)
        return str(body.validated_data["reason"])

    @extend_schema(request=s.ReasonSerializer, responses=s.DeploymentSerializer)
    def rollback(self, request: Request, **kwargs: Any) -> Response:
        """Roll back each touched agent to what it ran before."""
        rollbacks.start(self.get_object(), reason=self._reason(request, s.ReasonSerializer), actor=self.actor)
        return self.represent(self.get_object())

    @extend_schema(request=s.OptionalReasonSerializer, responses=s.DeploymentSerializer)
    def abort(self, request: Request, **kwargs: Any) -> Response:
        """Stop a deployment; agents keep running what they run."""
        reason = self._reason(request, s.OptionalReasonSerializer)
        deployments.abort(self.get_object(), reason=reason, actor=self.actor)
        return self.represent(self.get_object())

    @extend_schema(request=s.OptionalReasonSerializer, responses=s.DeploymentSerializer)
    def pause(self, request: Request, **kwargs: Any) -> Response:
        """Pause a deployment: offer it to no further agents until it is resumed."""
        return self._set_paused(request, paused=True)

    @extend_schema(request=s.OptionalReasonSerializer, responses=s.DeploymentSerializer)
    def resume(self, request: Request, **kwargs: Any) -> Response:
        """Resume a paused deployment."""
        return self._set_paused(request, paused=False)

    @extend_schema(request=s.RetrySerializer, responses=s.DeploymentSerializer)
    def retry(self, request: Request, **kwargs: Any) -> Response:
        """Offer a deployment again to the agents that failed, or to some of them."""
        body = s.RetrySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        deployments.retry(self.get_object(), **body.validated_data, actor=self.actor)
        return self.represent(self.get_object())

    @extend_schema(responses={(200, "application/x-tar"): OpenApiTypes.BINARY})
    def evidence(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Download the evidence, with which byteor-verify proves offline who approved exactly these bytes."""
        deployment = self.get_object()
        archive = evidence.build_archive(deployment)
        response = HttpResponse(archive, content_type="application/x-tar")
        response["Content-Disposition"] = f'attachment; filename="deployment-{deployment.pk}-evidence.tar"'
        response["ETag"] = f'"{sha256(archive)}"'
        return response

    def _set_paused(self, request: Request, *, paused: bool) -> Response:
        reason = self._reason(request, s.OptionalReasonSerializer)
        deployments.set_paused(self.get_object(), paused=paused, reason=reason, actor=self.actor)
        return self.represent(self.get_object())


class _DeploymentChildViewSet(ListModelMixin, EnvironmentViewSet):
    """Base of the views below ``…/deployments/{id}``. Looks up the deployment inside the environment."""

    permissions = {"list": P.VIEW_ENVIRONMENT}

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        deployment = Deployment.objects.filter(pk=self.kwargs["id"], environment=self.environment)
        if not deployment.exists():
            raise NotFound("This environment has no such deployment.")
        return queryset.filter(deployment=self.kwargs["id"])


_HAS_FAILURE = Q(Exists(AgentFailure.objects.filter(part=OuterRef("pk"))))


class DeploymentAgentViewSet(_DeploymentChildViewSet):
    """The enlisted agents of a deployment and their progress."""

    operations = operations.DEPLOYMENT_AGENT
    queryset = (
        DeploymentAgent.objects.select_related("agent", "deployment__config_bundle")
        .prefetch_related("failures")
        .annotate(reported_tuning=Q(tuning__isnull=False))
    )
    serializer_class = s.DeploymentAgentSerializer
    filters = {
        "progress": choice_parameter(AgentProgress, "progress"),
        "wave": integer_parameter(0, 1000, "wave"),
        "has_failure": flag_parameter(
            condition=lambda wanted: _HAS_FAILURE if wanted else ~_HAS_FAILURE,
            description="Return only agents with, or only agents without, a `failure`.",
        ),
    }


class TimelineViewSet(_DeploymentChildViewSet):
    """The timeline of a deployment, newest entry first."""

    operations = operations.TIMELINE
    queryset = TimelineEntry.objects.all()
    serializer_class = s.TimelineEntrySerializer


class ApprovalViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Approvals. POST records a decision."""

    operations = operations.APPROVAL
    queryset = Approval.objects.select_related("deployment", "environment__project").prefetch_related("decisions")
    serializer_class = s.ApprovalSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(ApprovalStatus, "status"),
        "deployment_id": id_parameter("deployment__id"),
        "replay_id": id_parameter("replay_id"),
    }
    errors = {"revoke": (Conflict,)}
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "create": P.OPERATE_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        "revoke": P.OPERATE_ENVIRONMENT,
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Read the config bundle for its warnings, which a list does not show."""
        return queryset if self.action == "list" else queryset.select_related("deployment__config_bundle__version")

    @extend_schema(request=s.DecideSerializer, responses={201: s.ApprovalSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Approve or deny; the response is 201 with the approval."""
        return super().create(request, *args, **kwargs)

    def validated(self, request: Request, *, partial: bool = False, row: Model | None = None) -> dict[str, Any]:
        body = s.DecideSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        return dict(body.validated_data)

    def perform_create(self, data: dict[str, Any]) -> Model:
        approval = data.pop("approval")
        if approval is None:
            raise Conflict("This deployment needs no approval.", code="approval.not_needed")
        decided = approvals.decide(approval, user=self.principal.user, actor=self.actor, **data)
        return self.get_queryset().get(pk=decided.pk)  # type: ignore[no-any-return]  # with its decisions

    @extend_schema(request=None, responses=s.ApprovalSerializer)
    def revoke(self, request: Request, **kwargs: Any) -> Response:
        """Revoke an approval that has not been used."""
        approvals.revoke(self.get_object(), actor=self.actor)
        return self.represent(self.get_object())


class AgentDeploymentViewSet(AgentSelfViewSet):
    """An agent's own offer, its bundle, and the agent's reports on it.

    ``apps.releases.api.agent_path`` answers nearly all polls and reports before Django, with the same functions.
    """

    operations = operations.AGENT_DEPLOYMENT
    queryset = Agent.objects.none()
    serializer_class = s.ReportSerializer
    errors = {"report": (Conflict,), "bundle": (Conflict,)}
    permissions = {"retrieve": SIGNED_IN, "report": SIGNED_IN, "bundle": SIGNED_IN}
    parameters = {
        "retrieve": {"wait_s": WAIT_S},
        "bundle": {"hash": sha256_parameter(required=True, description="The `bundle_hash` of the offer.")},
    }
    agent_scope = "agent:deployment"

    @extend_schema(responses=s.DesiredAnswerSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Return the current offer with its signed envelope."""
        offered = read_offer(self.agent.pk)
        return Response(offered.document, headers={"ETag": offered.etag})

    @extend_schema(request=s.ReportSerializer, responses={200: s.ReportAnswerSerializer})
    def report(self, request: Request, **kwargs: Any) -> Response:
        """Record the agent's report on its offer."""
        answer = accept_report(request.data, agent_id=self.agent.pk, environment_id=self.environment.pk)
        return Response(answer)

    @extend_schema(
        responses={(200, "application/x-tar"): OpenApiTypes.BINARY},
    )
    def bundle(self, request: Request, **kwargs: Any) -> FileResponse:
        """Download the deploy bundle's tar."""
        wanted = self.parameter_values["hash"]
        assignment = Assignment.objects.get(agent=self.agent)
        if assignment.bundle_hash != wanted:
            raise Conflict("The agent has another offer now. Fetch the offer again.", code="not_desired")
        try:
            source = blobs.read(wanted)
        except NotStored as error:  # a fault of the control plane: the agent must try again, not fail the deployment
            raise Unavailable("The bundle is not stored any more.", retry_after=30) from error
        response = FileResponse(source, content_type="application/x-tar")
        response["ETag"] = f'"{wanted}"'
        return response
