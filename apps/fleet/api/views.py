"""API views of enrollment tokens and agents, and the routes that agents call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api import enrolling
from apps.fleet.api import serializers as s
from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.api.enrolling import EnrollRequest
from apps.fleet.models import Agent, AgentKey, EnrollmentToken, Heartbeat, Liveness
from apps.fleet.services import agents, facts, heartbeat_body, heartbeats, keys
from apps.fleet.services.enrollment import Enrollment, create_enrollment_token
from apps.tenancy.api.authentication import UNUSABLE
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.idempotency import Repeatable
from apps.tenancy.api.serializers import KeySetSerializer
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import Posture
from apps.tenancy.services import signing_keys, tokens
from byteor.engine.machines import AgentProgress
from byteor_cloud.api.filters import BY_CREATION, BY_NAME, label_parameter
from byteor_cloud.api.mixins import (
    Created,
    CreateMixin,
    DestroyMixin,
    ListModelMixin,
    RetrieveMixin,
    UpdateMixin,
)
from byteor_cloud.api.operations import Operation, Tag
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

    tag = Tag.AGENTS
    queryset = EnrollmentToken.objects.all()
    serializer_class = s.EnrollmentTokenSerializer
    filters = BY_CREATION
    operations = {
        "list": Operation(
            "listEnrollmentTokens",
            P.MANAGE_ENVIRONMENT,
            """List enrollment tokens.

            Returns the environment's enrollment tokens, newest first, including used, revoked and expired ones. Secrets
            are never shown again.
            """,
        ),
        "create": Operation(
            "createEnrollmentToken",
            P.MANAGE_ENVIRONMENT,
            """Create an enrollment token.

            Creates a token with which hosts enroll in this environment. The response is the only one that contains the
            secret (`token`).
            """,
            example={"max_uses": 10},
            holds_secret=True,
        ),
        "destroy": Operation(
            "revokeEnrollmentToken",
            P.MANAGE_ENVIRONMENT,
            """Revoke an enrollment token.

            Refuses further enrollments with the token. Agents that are already enrolled are not affected.
            """,
        ),
    }

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

    tag = Tag.AGENTS
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
    operations = {
        "retrieve": Operation(
            "getAgent",
            P.VIEW_ENVIRONMENT,
            """Get an agent.

            Returns one agent of the environment.
            """,
        ),
        "update": Operation(
            "updateAgent",
            P.OPERATE_ENVIRONMENT,
            """Update an agent.

            Changes the agent's name or labels. With new labels the agent may match the target of a running deployment.
            So in an environment with the posture `prod`, other labels need the permission to manage the environment,
            and a caller without it gets 403.
            """,
            example={"labels": {"zone": "eu-1"}},
        ),
        "destroy": Operation(
            "decommissionAgent",
            P.OPERATE_ENVIRONMENT,
            """Decommission an agent.

            Revokes the agent's key and removes the agent from the fleet.
            """,
            errors=(PreconditionFailed,),
        ),
    }

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

    @Operation("listAgents", P.VIEW_ENVIRONMENT)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List agents.

        Returns the environment's agents, newest first, with the bundle that each should run and the bundle that it
        runs.
        """
        pulses = self.filter_queryset(facts.pulses([self.environment])).only("pk")
        found = self.get_queryset().in_bulk([pulse.pk for pulse in self.paginate_queryset(pulses)])
        # An agent that was decommissioned meanwhile is missing.
        rows = Pausing(found[pk] for pk in sorted(found, reverse=True))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    @Operation(
        "enrollAgent",
        SIGNED_IN,
        credentials=(Family.ENROLLMENT,),
        body=s.EnrollSerializer,
        responses={201: s.EnrolledSerializer},
        errors=(Conflict, QuotaExceeded),
        example={"name": "edge-7"},
        holds_secret=True,
        stores_response=True,
    )
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Enroll an agent.

        Spends one use of an enrollment token and creates an agent. Only this response contains the agent key
        (`api_key`). Refused with `quota.agents` if the organization has as many agents as its quota, unless the agent
        replaces another one.
        """
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

    @Operation(
        "rotateAgentKey",
        P.OPERATE_ENVIRONMENT,
        body=s.RotateKeySerializer,
        responses={201: s.RotatedKeySerializer, 202: s.RequestedRotationSerializer},
        errors=(Conflict,),
        example={"mode": "by_agent"},
        holds_secret=True,
    )
    def rotate_key(self, request: Request, **kwargs: Any) -> Response:
        """Rotate an agent's key.

        By default (`mode: now`) returns a new agent key, and the old key is refused at once. With `mode: by_agent` it
        answers 202, and the answers to the agent's heartbeats contain the command `rotate_key` until the agent uses a
        new key that it fetched with `rotateOwnKey`. While a clone of the agent is suspected (`clone_suspected_at`),
        `by_agent` returns 409, because the clone could fetch the new key. A rotation with `now` by a person clears the
        suspicion.
        """
        agent = self.get_object()
        body = s.RotateKeySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        if body.validated_data["mode"] == s.RotationMode.BY_AGENT:
            keys.request_rotation(agent, actor=self.actor)
            return Response({"agent_id": agent.pk, "mode": s.RotationMode.BY_AGENT}, status=202)
        return Response({"agent_id": agent.pk, "token": keys.rotate_key(agent, actor=self.actor)}, status=201)

    @Operation(
        "drainAgent",
        P.OPERATE_ENVIRONMENT,
        body=s.DrainSerializer,
        responses=s.AgentSerializer,
        errors=(Conflict,),
        example={"reason": "The disk is replaced."},
    )
    def drain(self, request: Request, **kwargs: Any) -> Response:
        """Drain an agent.

        Keeps the agent out of new offers, for example while its host is repaired. It keeps what it runs, and may finish
        an offer that it has. While it is drained, the agent is in no target: new deployments and later waves pass it
        by, a retry does not reach it, and no rollout waits for it. Only a rollback still reaches it, because that takes
        back what it was offered before. Liveness and drift are shown as ever.
        """
        return self._set_drained(request, drained=True)

    @Operation(
        "undrainAgent",
        P.OPERATE_ENVIRONMENT,
        body=s.DrainSerializer,
        responses=s.AgentSerializer,
        errors=(Conflict,),
        example={"reason": "The new disk is in place."},
    )
    def undrain(self, request: Request, **kwargs: Any) -> Response:
        """Undrain an agent.

        Lets the agent have new offers again. It is then offered the deployment that is current for it, as an agent that
        joins late is.
        """
        return self._set_drained(request, drained=False)

    def _set_drained(self, request: Request, *, drained: bool) -> Response:
        body = s.DrainSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        agents.set_drained(self.get_object(), drained=drained, **body.validated_data, actor=self.actor)
        return self.represent(self.get_object())


class OwnAgentViewSet(RetrieveMixin, AgentSelfViewSet):
    """The agent whose key the request contains."""

    tag = Tag.AGENTS
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = REPORTED
    operations = {
        "retrieve": Operation(
            "getOwnAgent",
            SIGNED_IN,
            """Get the agent's own record.

            Called by an agent with its own key.
            """,
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]  # of our own queryset


class OwnKeyViewSet(AgentSelfViewSet):
    """The key of the agent that calls."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = s.RotatedKeySerializer

    @Operation(
        "rotateOwnKey", SIGNED_IN, responses={201: s.RotatedKeySerializer}, errors=(Conflict,), holds_secret=True
    )
    def rotate_own_key(self, request: Request, **kwargs: Any) -> Response:
        """Fetch a new agent key.

        Called by an agent with its own key, when a heartbeat's answer contains the command `rotate_key`, or at any
        time. Returns a new key with the same scopes. The key that was used for the call ends at the first use of the
        new one, or after 24 hours. So store the new key safely before you use it. Another call before that use returns
        another new key, and the unused one is revoked. An agent may do this three times in an hour; after that the
        answer is 429. A rotation that a person requests grants three more. While a clone of the agent is suspected, the
        response is 409: keep the present key, and do not ask again. Only a person can then replace the key, with
        `rotateAgentKey` or by enrolling the agent again.
        """
        key = self.principal.credential
        assert isinstance(key, AgentKey)  # noqa: S101  the authentication accepts agent keys only
        return Response({"agent_id": self.agent.pk, "token": keys.rotate_own_key(key, actor=self.actor)}, status=201)


class SigningKeyViewSet(AgentSelfViewSet):
    """The key set with which agents verify deploy bundles."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = KeySetSerializer
    agent_scope = "agent:signing_key"

    @Operation("getSigningKeys", SIGNED_IN, responses=KeySetSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the published signing keys.

        Called by an agent. Returns the keys with which deploy bundles are verified, as a JSON Web Key Set with validity
        times.
        """
        keys = signing_keys.key_set(self.environment.project.organization_id)
        response = Response(keys.document())
        response["ETag"] = f'"{signing_keys.etag(keys)}"'
        response["Cache-Control"] = "private, max-age=60"
        return response


class HeartbeatViewSet(AgentSelfViewSet):
    """Heartbeats. ``apps.releases.api.agent_path`` answers nearly all of them before Django, with the same code."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = s.HeartbeatAnswerSerializer
    agent_scope = "agent:heartbeat"
    schemas = heartbeat_body.SCHEMAS

    @Operation(
        "sendHeartbeat",
        SIGNED_IN,
        body={"application/json": {"$ref": "#/components/schemas/HeartbeatRequest"}},
        responses={200: s.HeartbeatAnswerSerializer},
        errors=(Conflict,),
        example={"status": "healthy", "agent_version": "0.1.0"},
        takes_idempotency_key=False,
    )
    def send(self, request: Request, **kwargs: Any) -> Response:
        """Send a heartbeat.

        Called by an agent. Stores the agent's status and returns what the agent should run. A heartbeat that is
        answered with 200 is stored durably.
        """
        interval_s = self.environment.effective_settings.heartbeat_interval_s
        body = heartbeat_body.parse(request.data)
        organization = self.environment.project.organization
        stored = heartbeats.store(
            agent_id=self.agent.pk, organization_id=organization.pk, interval_s=interval_s, heartbeat=body
        )
        if stored is None:
            raise Unauthenticated(UNUSABLE)
        return Response(s.heartbeat_answer(self.agent.pk, stored, key_set_etag=organization.key_set_etag))
