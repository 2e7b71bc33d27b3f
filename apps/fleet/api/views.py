"""API views of enrollment tokens and agents, and the routes that agents call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.fleet import heartbeat_body, heartbeats, keys, services
from apps.fleet.api import enrolling, operations
from apps.fleet.api import serializers as s
from apps.fleet.api.authentication import finish_rotation, is_live, rate_limit_key
from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.api.enrolling import EnrollRequest
from apps.fleet.enrollment import Enrollment, create_enrollment_token
from apps.fleet.models import Agent, AgentKey, EnrollmentToken, Heartbeat, Liveness
from apps.tenancy.api import limits
from apps.tenancy.api.authentication import UNUSABLE, bearer_credential
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.filters import BY_CREATION, BY_NAME, label_parameter
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
from apps.tenancy.api.sizes import defer_large_json
from apps.tenancy.credentials import Family, credential_digest, family_of
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import Posture
from apps.tenancy.services import signing_keys, tokens
from byteor_cloud.api import bodies, problems
from byteor_cloud.api.declared import DeclaredView, Errors
from byteor_cloud.api.parameters import check_query, choice_parameter, flag_parameter, line_parameter
from byteor_cloud.api.parsers import parse_json
from byteor_cloud.api.request_slots import released_slot
from byteor_cloud.database import release_connection
from byteor_cloud.errors import (
    Conflict,
    DomainError,
    Forbidden,
    NotFound,
    PreconditionFailed,
    TooManyRequests,
    Unauthenticated,
    UnsupportedMediaType,
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


class AgentViewSet(ListModelMixin, RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """Agents of an environment. POST enrolls an agent and is permitted by an enrollment token, not by a role."""

    operations = operations.AGENT
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = REPORTED
    filters = {
        **BY_NAME,
        "status": choice_parameter(Heartbeat.Status.values, "heartbeat__status"),
        "liveness": choice_parameter(Liveness, "liveness"),
        "drifted": flag_parameter("drifted"),
        "drained": flag_parameter("drained", description="Only agents that are drained, or that are not."),
        "cloned": flag_parameter("cloned", description="Only agents with a suspected clone, or without one."),
        "label": label_parameter("labels"),
        "hostname": line_parameter("hostname__icontains", max_length=253, description="A part of the host's name."),
    }
    credentials = {"create": (Family.ENROLLMENT,)}
    errors = {
        "create": (Conflict,),
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

    def get_serializer_class(self) -> type[s.AgentSerializer]:
        return s.ListedAgentSerializer if self.action == "list" else s.AgentSerializer

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
        agents = queryset.with_state()  # type: ignore[attr-defined]  # of our own queryset
        return defer_large_json(agents, "heartbeat__report") if self.action == "list" else agents

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
        services.update_agent(
            row,
            data,
            may_relabel=self.environment.posture != Posture.PROD or P.MANAGE_ENVIRONMENT in self.granted_permissions,
            actor=self.actor,
            expected_revision=self.expected_revision,
        )
        return self.get_object()  # type: ignore[no-any-return]  # read again, with liveness and drift

    def perform_destroy(self, row: Agent) -> None:
        services.decommission(row, actor=self.actor, expected_revision=self.expected_revision)

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
        services.set_drained(self.get_object(), drained=drained, **body.validated_data, actor=self.actor)
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


def _with_usage(response: HttpResponse, usage: limits.RateLimitUsage | None) -> HttpResponse:
    for name, value in usage.headers.items() if usage is not None else ():
        response[name] = value
    return response


class HeartbeatView(DeclaredView, APIView):
    """The heartbeat route. It is called most often, so it bypasses most of DRF and sends one database statement."""

    operations = operations.HEARTBEAT
    http_method_names = ["post"]
    credentials: ClassVar[Mapping[str, tuple[Family, ...]]] = {"post": (Family.AGENT,)}
    permissions: ClassVar[Mapping[str, Any]] = {"post": SIGNED_IN}
    errors: ClassVar[Mapping[str, Errors]] = {"post": (Conflict,)}
    takes_idempotency_key = False
    schemas = heartbeat_body.SCHEMAS

    @classmethod
    def families(cls, action: str) -> tuple[Family, ...]:
        return cls.credentials[action]

    @extend_schema(
        request={"application/json": {"$ref": "#/components/schemas/HeartbeatRequest"}},
        responses={200: s.HeartbeatAnswerSerializer},
    )
    def post(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """Store a heartbeat durably and return what the agent should run."""
        text = bearer_credential(request)
        family = family_of(text) if text else None
        if text is None or family is None:
            raise Unauthenticated("Send an agent key as the bearer token.")
        if family is not Family.AGENT:
            raise Forbidden(
                "This operation needs an agent key, but the credential belongs to another family.",
                code="wrong_credential",
            )
        key = credential_digest(text)
        usage = limits.count_agent(rate_limit_key(key))
        try:
            if usage is not None:
                usage.check()
        except TooManyRequests as error:  # only known keys are counted (see ``forget_agent``), so no query is needed
            return _with_usage(problems.respond(request, error), usage)
        try:
            answer = heartbeats.store(digest=key, agent_id=id, heartbeat=self._read_body(request))
            if answer is None:
                raise Unauthenticated(UNUSABLE)
            if answer.is_first_use:
                finish_rotation(request, key)
        except DomainError as error:
            # The statement that stores the heartbeat also checks the key. A caller without a usable key must not learn
            # about other errors, so the key's error comes first.
            return self._refuse(request, self._key_error(key, id) or error, usage)
        response = HttpResponse(json.dumps(s.heartbeat_answer(id, answer)), content_type="application/json")
        response["Cache-Control"] = "no-store"
        return _with_usage(response, usage)

    @staticmethod
    def _read_body(request: HttpRequest) -> heartbeat_body.HeartbeatBody:
        cap: int = settings.CONFIG.max_agent_body_bytes
        bodies.check_declared_length(request, cap)
        if request.content_type != "application/json":
            raise UnsupportedMediaType("Send application/json.")
        check_query({}, request.GET)
        return heartbeat_body.parse(parse_json(bodies.read_body(request, cap)))

    @staticmethod
    def _refuse(request: HttpRequest, error: DomainError, usage: limits.RateLimitUsage | None) -> HttpResponse:
        response = problems.respond(request, error)
        if isinstance(error, Unauthenticated):
            limits.forget_agent(rate_limit_key(credential_digest(bearer_credential(request) or "")))
            return response
        return _with_usage(response, usage)

    @staticmethod
    def _key_error(key_digest: str, id: UUID) -> DomainError | None:
        """Return why the key must not send heartbeats of this agent; None if it may."""
        key = AgentKey.objects.usable().filter(digest=key_digest).select_related("agent__environment__project").first()
        if key is None or not is_live(key.agent):
            return Unauthenticated(UNUSABLE)
        if key.agent_id != id:
            return NotFound("There is no resource at this URL.")
        if "agent:heartbeat" not in key.scopes:
            return Forbidden("This agent key does not have the scope agent:heartbeat.")
        return None

    @csrf_exempt
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Handle POST without DRF's request, content negotiation and rendering."""
        if request.method != "POST":
            return super().dispatch(request, *args, **kwargs)
        try:
            return self.post(request, **kwargs)
        except Exception as error:  # noqa: BLE001,RUF100  every error must become a problem, as DRF does it
            return problems.respond(request, problems.as_domain_error(error))
