"""API views of enrollment tokens and agents, and the routes that agents call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api import enrolling, operations
from apps.fleet.api import serializers as s
from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.api.enrolling import EnrollRequest
from apps.fleet.models import Agent, AgentKey, EnrollmentToken, Heartbeat, Liveness
from apps.fleet.services import agents, facts, heartbeats, keys
from apps.fleet.services.enrollment import Enrollment, create_enrollment_token
from apps.tenancy.api.authentication import UNUSABLE
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.idempotency import Repeatable
from apps.tenancy.api.mixins import (
    Created,
    CreateMixin,
    DestroyMixin,
    ListModelMixin,
    RetrieveMixin,
    UpdateMixin,
)
from apps.tenancy.api.serializers import KeySetSerializer
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import Posture
from apps.tenancy.services import signing_keys, tokens
from byteor.engine.machines import AgentProgress
from byteor_cloud.api.filters import BY_CREATION, BY_NAME, label_parameter
from byteor_cloud.api.pagination import NewestFirst
from byteor_cloud.api.parameters import choice_parameter, flag_parameter, line_parameter, sha256_parameter
from byteor_cloud.api.request_slots import released_slot
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import (
    Conflict,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    Unauthenticated,
)


class EnrollmentTokenViewSet(ListModelMixin, CreateMixin, DestroyMixin, EnvironmentViewSet):
    """Enrollment tokens of an environment."""

    operations = operations.ENROLLMENT_TOKEN
    queryset = EnrollmentToken.objects.all()
    serializer_class = s.EnrollmentTokenSerializer
    filters = BY_CREATION
    permissions = {
        "list": P.MANAGE_ENVIRONMENT,
        "create": P.MANAGE_ENVIRONMENT,
        "destroy": P.MANAGE_ENVIRONMENT,
    }
    secret_actions = frozenset({"create"})

    def perform_create(self, data: dict[str, Any]) -> Created:
        token, secret = create_enrollment_token(environment=self.environment, actor=self.actor, **data)
        return Created(token, {"token": secret})

    def perform_destroy(self, row: EnrollmentToken) -> None:
        tokens.revoke(row, action="enrollment_token.revoke", actor=self.actor, scope=self.environment)


REPORTED = frozenset({
    "status", "agent_version", "liveness", "drifted", "last_seen_at", "progress", "desired", "attempted", "running",
    "last_failed", "report", "clone_suspected_at",
})  # fmt: skip


class NewestAgentsFirst(NewestFirst):
    """Pages over rows that belong to one agent each."""

    ordering = "-agent_id"


class AgentViewSet(ListModelMixin, RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """Agents of an environment. POST enrolls an agent and is permitted by an enrollment token, not by a role."""

    operations = operations.AGENT
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = REPORTED
    pagination_class = NewestAgentsFirst
    # ``list`` applies these to the agents' rows in the table of ``apps.fleet.models.Pulse``, and pages over those.
    filters = {
        **{name: replace(parameter, lookup=f"agent__{parameter.lookup}") for name, parameter in BY_NAME.items()},
        "status": choice_parameter(Heartbeat.Status.values, "status"),
        "liveness": choice_parameter(Liveness, condition=facts.has_liveness),
        "drifted": flag_parameter("drifted"),
        "drained": flag_parameter(
            condition=facts.is_drained, description="Only agents that are drained, or that are not."
        ),
        "cloned": flag_parameter(
            condition=facts.is_cloned, description="Only agents with a suspected clone, or without one."
        ),
        "progress": choice_parameter(AgentProgress, condition=facts.has_progress),
        "label": label_parameter("agent__labels"),
        "hostname": line_parameter(
            "agent__hostname__icontains", max_length=253, description="A part of the host's name."
        ),
        "bundle_hash": sha256_parameter("running_bundle_hash", description="Only agents that run this deploy bundle."),
    }
    credentials = {"create": (Family.ENROLLMENT,)}
    errors = {
        "create": (Conflict, QuotaExceeded),
        "destroy": (PreconditionFailed,),
        "rotate_key": (Conflict,),
        "drain": (Conflict,),
        "undrain": (Conflict,),
    }
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "create": SIGNED_IN,
        "retrieve": P.VIEW_ENVIRONMENT,
        "update": P.OPERATE_ENVIRONMENT,
        "destroy": P.OPERATE_ENVIRONMENT,
        "rotate_key": P.OPERATE_ENVIRONMENT,
        "drain": P.OPERATE_ENVIRONMENT,
        "undrain": P.OPERATE_ENVIRONMENT,
    }
    secret_actions = frozenset({"create", "rotate_key"})
    repeatable_by_itself = frozenset({"create"})

    def resolve_scope(self) -> None:
        token = self.principal.credential
        if not isinstance(token, EnrollmentToken):
            return super().resolve_scope()
        environment = token.environment
        path = (environment.pk, environment.project_id, environment.project.organization_id)
        if path != (self.kwargs["env_id"], self.kwargs["project_id"], self.kwargs["org_id"]):
            raise NotFound("There is no resource at this URL.")
        self.environment = environment
        return None

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]  # of our own queryset

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Find the agents of the page in narrow rows, and read only those agents in full."""
        pulses = self.filter_queryset(facts.pulses([self.environment])).only("pk")
        found = self.get_queryset().in_bulk([pulse.pk for pulse in self.paginate_queryset(pulses)])
        # An agent that was decommissioned meanwhile is missing.
        rows = Pausing(found[pk] for pk in sorted(found, reverse=True))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    @extend_schema(request=s.EnrollSerializer, responses={201: s.EnrolledSerializer})
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Enroll an agent, which spends one use of the enrollment token."""
        body = s.EnrollSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        token = self.principal.credential
        assert isinstance(token, EnrollmentToken)  # noqa: S101  the authentication accepts these only
        enrollment = Enrollment(token=token, environment=self.environment, actor=self.actor, **body.validated_data)
        repeatable = None
        if "Idempotency-Key" in request.headers:
            repeatable = Repeatable.of(request, principal=self.principal, holds_secret=True)
        # A request that waits for the others of its batch needs neither slot nor connection. So a batch can be large.
        release_connection()
        with released_slot(request._request):
            return enrolling.enroll(EnrollRequest(enrollment, request.path, repeatable))

    def perform_update(self, row: Agent, data: dict[str, Any]) -> Model:
        agents.update_agent(
            row,
            data,
            may_relabel=self.environment.posture != Posture.PROD or P.MANAGE_ENVIRONMENT in self.granted_permissions,
            actor=self.actor,
            expected_revision=self.expected_revision,
        )
        return self.get_object()  # type: ignore[no-any-return]  # read again, with liveness and drift

    def perform_destroy(self, row: Agent) -> None:
        agents.decommission(row, actor=self.actor, expected_revision=self.expected_revision)

    @extend_schema(
        request=s.RotateKeySerializer, responses={201: s.RotatedKeySerializer, 202: s.RequestedRotationSerializer}
    )
    def rotate_key(self, request: Request, **kwargs: Any) -> Response:
        """Create a new agent key and revoke the old one at once, or tell the agent to fetch a new key itself."""
        agent = self.get_object()
        body = s.RotateKeySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        if body.validated_data["mode"] == s.RotationMode.BY_AGENT:
            keys.request_rotation(agent, actor=self.actor)
            return Response({"agent_id": agent.pk, "mode": s.RotationMode.BY_AGENT}, status=202)
        return Response({"agent_id": agent.pk, "token": keys.rotate_key(agent, actor=self.actor)}, status=201)

    @extend_schema(request=s.DrainSerializer, responses=s.AgentSerializer)
    def drain(self, request: Request, **kwargs: Any) -> Response:
        """Keep the agent out of new offers."""
        return self._set_drained(request, drained=True)

    @extend_schema(request=s.DrainSerializer, responses=s.AgentSerializer)
    def undrain(self, request: Request, **kwargs: Any) -> Response:
        """Let the agent have new offers again."""
        return self._set_drained(request, drained=False)

    def _set_drained(self, request: Request, *, drained: bool) -> Response:
        body = s.DrainSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        agents.set_drained(self.get_object(), drained=drained, **body.validated_data, actor=self.actor)
        return self.represent(self.get_object())


class OwnAgentViewSet(RetrieveMixin, AgentSelfViewSet):
    """The agent whose key the request contains."""

    operations = operations.OWN_AGENT
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = REPORTED
    permissions = {"retrieve": SIGNED_IN}

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]  # of our own queryset


class OwnKeyViewSet(AgentSelfViewSet):
    """The key of the agent that calls."""

    operations = operations.OWN_KEY
    queryset = Agent.objects.none()
    serializer_class = s.RotatedKeySerializer
    permissions = {"rotate_own_key": SIGNED_IN}
    errors = {"rotate_own_key": (Conflict,)}
    secret_actions = frozenset({"rotate_own_key"})

    @extend_schema(request=None, responses={201: s.RotatedKeySerializer})
    def rotate_own_key(self, request: Request, **kwargs: Any) -> Response:
        """Create a new key for the calling agent; the key that it called with ends at the first use of the new one."""
        key = self.principal.credential
        assert isinstance(key, AgentKey)  # noqa: S101  the authentication accepts agent keys only
        return Response({"agent_id": self.agent.pk, "token": keys.rotate_own_key(key, actor=self.actor)}, status=201)


class SigningKeyViewSet(AgentSelfViewSet):
    """The key set with which agents verify deploy bundles."""

    operations = operations.SIGNING_KEY
    queryset = Agent.objects.none()
    serializer_class = KeySetSerializer
    permissions = {"retrieve": SIGNED_IN}
    agent_scope = "agent:signing_key"

    @extend_schema(responses=KeySetSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Return the published signing keys of the agent's organization."""
        keys = signing_keys.key_set(self.environment.project.organization_id)
        response = Response(keys.document())
        response["ETag"] = f'"{signing_keys.etag(keys)}"'
        response["Cache-Control"] = "private, max-age=60"
        return response


class HeartbeatViewSet(AgentSelfViewSet):
    """Heartbeats. ``apps.releases.api.agent_path`` answers nearly all of them before Django, with the same code."""

    operations = operations.HEARTBEAT
    queryset = Agent.objects.none()
    serializer_class = s.HeartbeatAnswerSerializer
    permissions = {"send": SIGNED_IN}
    errors = {"send": (Conflict,)}
    agent_scope = "agent:heartbeat"
    takes_idempotency_key = False
    schemas = heartbeats.SCHEMAS

    @extend_schema(
        request={"application/json": {"$ref": "#/components/schemas/HeartbeatRequest"}},
        responses={200: s.HeartbeatAnswerSerializer},
    )
    def send(self, request: Request, **kwargs: Any) -> Response:
        """Store a heartbeat durably and return what the agent should run."""
        interval_s = self.environment.effective_settings.heartbeat_interval_s
        body = heartbeats.parse(request.data)
        organization = self.environment.project.organization
        stored = heartbeats.store(
            agent_id=self.agent.pk, organization_id=organization.pk, interval_s=interval_s, heartbeat=body
        )
        if stored is None:
            raise Unauthenticated(UNUSABLE)
        return Response(s.heartbeat_answer(self.agent.pk, stored, key_set_etag=organization.key_set_etag))
