"""Views of config bundles, deployments and approvals, and of the offers to agents."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.models import Agent, Assignment
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
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from byteor.engine.canonical import sha256
from byteor.engine.machines import AgentProgress, ApprovalStatus, DeploymentStatus
from byteor_cloud.api.fields import StrictSerializer
from byteor_cloud.api.filters import BY_CREATION, BY_NAME
from byteor_cloud.api.mixins import CreateMixin, ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import HASH, ID, Operation, Tag
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
    tag = Tag.CONFIG_BUNDLES
    queryset = ConfigBundle.objects.select_related("version", "environment__project")
    serializer_class = s.ConfigBundleSerializer
    filters = {**BY_NAME, "version_id": id_parameter("version_id"), "config_hash": sha256_parameter("config_hash")}
    operations = {
        "list": Operation(
            "listConfigBundles",
            P.VIEW_ENVIRONMENT,
            """List config bundles.

            Returns the environment's config bundles, newest first.
            """,
        ),
        "create": Operation(
            "createConfigBundle",
            P.OPERATE_ENVIRONMENT,
            """Create a config bundle.

            Joins a version with its runtime configuration. The bundle is immutable; `config_hash` identifies its
            content.
            """,
            example={"name": "trades-1", "version_id": ID},
        ),
        "retrieve": Operation(
            "getConfigBundle",
            P.VIEW_ENVIRONMENT,
            """Get a config bundle.

            Returns one config bundle.
            """,
        ),
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

    @Operation(
        "clearConfigBundle",
        P.OPERATE_ENVIRONMENT,
        body=s.ReasonSerializer,
        responses=s.ConfigBundleSerializer,
        errors=(Conflict,),
        example={"reason": "The disk of the host was full."},
    )
    def clear(self, request: Request, **kwargs: Any) -> Response:
        """Clear a known bad config bundle.

        Allows a configuration that failed in this environment to be deployed again. You must give a reason, which is
        stored in the audit ledger.
        """
        bundle = self.get_object()
        body = s.ReasonSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        bundles.clear_known_bad(bundle, reason=body.validated_data["reason"], actor=self.actor)
        return self.represent(self.get_object())


class DeploymentViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Deployments, which bring config bundles to agents."""

    tag = Tag.DEPLOYMENTS
    queryset = Deployment.objects.select_related("config_bundle__version", "approval", "environment__project")
    serializer_class = s.DeploymentSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(DeploymentStatus, "status"),
        "pipeline": line_parameter("pipeline"),
        "is_current": flag_parameter("is_current"),
        "config_bundle_id": id_parameter("config_bundle_id"),
    }
    operations = {
        "list": Operation(
            "listDeployments",
            P.VIEW_ENVIRONMENT,
            """List deployments.

            Returns the environment's deployments, newest first.
            """,
        ),
        "create": Operation(
            "createDeployment",
            P.OPERATE_ENVIRONMENT,
            """Create a deployment.

            Requests that a config bundle runs on a target. The deployment starts as `pending_approval` if the
            environment requires approvals, else as `approved`. Refused with `quota.stored_bytes` if the deploy bundle
            would exceed the quota of the organization; no later step is refused because of it.
            """,
            errors=(Conflict, QuotaExceeded),
            example={"config_bundle_id": ID, "target": {"all": True}},
        ),
        "retrieve": Operation(
            "getDeployment",
            P.VIEW_ENVIRONMENT,
            """Get a deployment.

            Returns the deployment with its status, the progress of its agents, and why agents failed.
            """,
        ),
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

    @Operation(
        "rollBackDeployment",
        P.OPERATE_ENVIRONMENT,
        body=s.ReasonSerializer,
        responses=s.DeploymentSerializer,
        errors=(Conflict,),
        example={"reason": "The latency has doubled."},
    )
    def rollback(self, request: Request, **kwargs: Any) -> Response:
        """Roll back a deployment.

        Offers each agent that has the deployment's bundle, or should have it, what the agent ran before. The
        configuration that is rolled back becomes known bad.
        """
        rollbacks.start(self.get_object(), reason=self._reason(request, s.ReasonSerializer), actor=self.actor)
        return self.represent(self.get_object())

    @Operation(
        "abortDeployment",
        P.OPERATE_ENVIRONMENT,
        body=s.OptionalReasonSerializer,
        responses=s.DeploymentSerializer,
        errors=(Conflict,),
        example={"reason": "The wrong version was chosen."},
    )
    def abort(self, request: Request, **kwargs: Any) -> Response:
        """Abort a deployment.

        Ends the deployment as `failed` with the reason `aborted`. Agents that already run it keep running it. To change
        that, roll the deployment back.
        """
        reason = self._reason(request, s.OptionalReasonSerializer)
        deployments.abort(self.get_object(), reason=reason, actor=self.actor)
        return self.represent(self.get_object())

    @Operation(
        "pauseDeployment",
        P.OPERATE_ENVIRONMENT,
        body=s.OptionalReasonSerializer,
        responses=s.DeploymentSerializer,
        errors=(Conflict,),
        example={"reason": "The market opens in an hour."},
    )
    def pause(self, request: Request, **kwargs: Any) -> Response:
        """Pause a deployment.

        Offers the deployment to no further agent until it is resumed. The status does not change.
        """
        return self._set_paused(request, paused=True)

    @Operation(
        "resumeDeployment",
        P.OPERATE_ENVIRONMENT,
        body=s.OptionalReasonSerializer,
        responses=s.DeploymentSerializer,
        errors=(Conflict,),
        example={"reason": "The market has closed."},
    )
    def resume(self, request: Request, **kwargs: Any) -> Response:
        """Resume a deployment.

        Continues a paused deployment.
        """
        return self._set_paused(request, paused=False)

    @Operation(
        "retryDeployment",
        P.OPERATE_ENVIRONMENT,
        body=s.RetrySerializer,
        responses=s.DeploymentSerializer,
        errors=(Conflict,),
        example={"reason": "The network is back.", "agents": [ID]},
    )
    def retry(self, request: Request, **kwargs: Any) -> Response:
        """Retry a deployment.

        Offers the deployment again to the agents that failed, or to those of them in `agents`. A deployment that has
        failed continues. One that is active and current stays active.
        """
        body = s.RetrySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        deployments.retry(self.get_object(), **body.validated_data, actor=self.actor)
        return self.represent(self.get_object())

    @Operation(
        "exportDeploymentEvidence",
        P.OPERATE_ENVIRONMENT,
        responses={(200, "application/x-tar"): OpenApiTypes.BINARY},
        errors=(Conflict,),
    )
    def evidence(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Export the evidence of a deployment.

        Returns a tar with the signed files that show who approved exactly these bytes for this environment: the bundle,
        its envelope, the approval credential, the record of the approval and the key set. `byteor-verify` checks it
        offline.
        """
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
    serializer_class = s.DeploymentAgentSerializer
    filters = {
        "progress": choice_parameter(AgentProgress, "progress"),
        "wave": integer_parameter(0, 1000, "wave"),
        "has_failure": flag_parameter(
            condition=lambda wanted: _HAS_FAILURE if wanted else ~_HAS_FAILURE,
            description="Return only agents with, or only agents without, a `failure`.",
        ),
    }
    operations = {
        "list": Operation(
            "listDeploymentAgents",
            P.VIEW_ENVIRONMENT,
            """List the agents of a deployment.

            Returns each agent that the deployment is for, with its wave and its progress.
            """,
        ),
    }


class TimelineViewSet(_DeploymentChildViewSet):
    """The timeline of a deployment, newest entry first."""

    tag = Tag.DEPLOYMENTS
    queryset = TimelineEntry.objects.all()
    serializer_class = s.TimelineEntrySerializer
    operations = {
        "list": Operation(
            "listDeploymentTimeline",
            P.VIEW_ENVIRONMENT,
            """List the timeline of a deployment.

            Returns what happened to the deployment, newest first.
            """,
        ),
    }


class ApprovalViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Approvals. POST records a decision."""

    tag = Tag.APPROVALS
    queryset = Approval.objects.select_related("deployment", "environment__project").prefetch_related("decisions")
    serializer_class = s.ApprovalSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(ApprovalStatus, "status"),
        "deployment_id": id_parameter("deployment__id"),
        "replay_id": id_parameter("replay_id"),
    }
    operations = {
        "list": Operation(
            "listApprovals",
            P.VIEW_ENVIRONMENT,
            """List approvals.

            Returns requests for approval with their decisions, newest first.
            """,
        ),
        "create": Operation(
            "decideApproval",
            P.OPERATE_ENVIRONMENT,
            """Approve or deny.

            Records the caller's decision on a deployment or an execute replay, and returns the approval. One denial
            denies the request. When enough people have approved, the approval credential is issued. Only a person can
            decide, not an API key.
            """,
            body=s.DecideSerializer,
            responses={201: s.ApprovalSerializer},
            example={"deployment_id": ID, "decision": "approve"},
        ),
        "retrieve": Operation(
            "getApproval",
            P.VIEW_ENVIRONMENT,
            """Get an approval.

            Returns the approval with its decisions. Callers with the permission `environment:operate` also see its
            credential.
            """,
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Read the config bundle for its warnings, which a list does not show."""
        return queryset if self.action == "list" else queryset.select_related("deployment__config_bundle__version")

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

    @Operation("revokeApproval", P.OPERATE_ENVIRONMENT, responses=s.ApprovalSerializer, errors=(Conflict,))
    def revoke(self, request: Request, **kwargs: Any) -> Response:
        """Revoke an approval.

        Revokes an approval that is pending, or that was given and not used yet.
        """
        approvals.revoke(self.get_object(), actor=self.actor)
        return self.represent(self.get_object())


class AgentDeploymentViewSet(AgentSelfViewSet):
    """An agent's own offer, its bundle, and the agent's reports on it.

    ``apps.releases.api.agent_path`` answers nearly all polls and reports before Django, with the same functions.
    """

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = s.ReportSerializer
    agent_scope = "agent:deployment"

    @Operation("getAgentDeployment", SIGNED_IN, parameters={"wait_s": WAIT_S}, responses=s.DesiredAnswerSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the agent's current offer.

        Called by an agent. Returns what it should run, with the signed envelope of the deploy bundle.
        """
        offered = read_offer(self.agent.pk)
        return Response(offered.document, headers={"ETag": offered.etag})

    @Operation(
        "reportDeployment",
        SIGNED_IN,
        body=s.ReportSerializer,
        responses={200: s.ReportAnswerSerializer},
        errors=(Conflict,),
        example={"deployment_id": ID, "status": "active", "bundle_hash": HASH},
    )
    def report(self, request: Request, **kwargs: Any) -> Response:
        """Report progress on an offer.

        Called by an agent while it downloads, activates or rolls back the offered bundle.
        """
        answer = accept_report(request.data, agent_id=self.agent.pk, environment_id=self.environment.pk)
        return Response(answer)

    @Operation(
        "downloadDeployBundle",
        SIGNED_IN,
        parameters={"hash": sha256_parameter(required=True, description="The `bundle_hash` of the offer.")},
        responses={(200, "application/x-tar"): OpenApiTypes.BINARY},
        errors=(Conflict,),
    )
    def bundle(self, request: Request, **kwargs: Any) -> FileResponse:
        """Download the deploy bundle.

        Called by an agent. Returns the tar whose digest is in the signed envelope. Answers 409 when the agent should no
        longer run that bundle.
        """
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
