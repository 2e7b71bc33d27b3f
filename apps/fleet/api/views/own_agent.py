"""What an agent asks about itself, and its heartbeats."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api import serializers as s
from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.models import Agent, AgentKey
from apps.fleet.services import heartbeats, keys
from apps.tenancy.api.authentication import UNUSABLE
from apps.tenancy.api.base import SIGNED_IN
from apps.tenancy.api.serializers.signing_keys import KeySetSerializer
from apps.tenancy.services import signing_keys
from byteor_cloud.api.mixins import RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.errors import Conflict, Unauthenticated


class OwnAgentViewSet(RetrieveMixin, AgentSelfViewSet):
    """The agent whose key the request contains."""

    tag = Tag.AGENTS
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = s.REPORTED
    operations = {
        "retrieve": Operation(
            "getOwnAgent", SIGNED_IN, "Get the agent's own record", "Called by an agent with its own key."
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
    schemas = heartbeats.SCHEMAS

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
        body = heartbeats.parse(request.data)
        organization = self.environment.project.organization
        stored = heartbeats.store(
            agent_id=self.agent.pk, organization_id=organization.pk, interval_s=interval_s, heartbeat=body
        )
        if stored is None:
            raise Unauthenticated(UNUSABLE)
        return Response(s.heartbeat_answer(self.agent.pk, stored, key_set_etag=organization.key_set_etag))
