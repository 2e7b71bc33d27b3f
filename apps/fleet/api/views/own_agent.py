"""The views with which agents read their own record, rotate their key, fetch signing keys and send heartbeats."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api import serializers as s
from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.models import Agent, AgentKey
from apps.fleet.services import heartbeats, keys
from apps.tenancy.api.base import SIGNED_IN
from apps.tenancy.api.serializers.signing_keys import KeySetSerializer
from apps.tenancy.credentials import UNUSABLE
from apps.tenancy.services import signing_keys
from byteor_cloud.api.mixins import RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.errors import Conflict, Unauthenticated


class OwnAgentViewSet(RetrieveMixin, AgentSelfViewSet):
    """The agent that sends the request."""

    tag = Tag.AGENTS
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = s.REPORTED
    operations = {
        "retrieve": Operation(
            "getOwnAgent", SIGNED_IN, "Get the agent's own record", "Returns the agent whose key is used."
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]  # it is an AgentQuerySet


class OwnKeyViewSet(AgentSelfViewSet):
    """The key of the agent that sends the request."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = s.RotatedKeySerializer

    @Operation(
        "rotateOwnKey", SIGNED_IN, responses={201: s.RotatedKeySerializer}, errors=(Conflict,), holds_secret=True
    )
    def rotate_own_key(self, request: Request, **kwargs: Any) -> Response:
        """Fetch a new agent key.

        Called by an agent with its own key, at any time or when the response to a heartbeat contains the command
        `rotate_key`. Returns a new key with the same scopes. The key used for this call stays valid until the new key
        is first used, for at most 24 hours. So store the new key before you use it. If you call this operation again
        before the first use, you get another new key, and the unused key is revoked. An agent may fetch three keys per
        hour; further calls return 429. When a person or an organization API key requests a rotation (`mode: by_agent`),
        the count starts again. While a clone of the agent is suspected, returns 409: keep the current key and do not
        retry. A person must then rotate the key with `rotateAgentKey` and `mode: now`, or enroll the agent again.
        """
        key = self.principal.credential
        assert isinstance(key, AgentKey)  # noqa: S101  the authentication accepts agent keys only
        return Response({"agent_id": self.agent.pk, "token": keys.rotate_own_key(key, actor=self.actor)}, status=201)


class SigningKeyViewSet(AgentSelfViewSet):
    """The public signing keys with which agents verify deploy bundles."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = KeySetSerializer
    agent_scope = "agent:signing_key"

    @Operation("getSigningKeys", SIGNED_IN, responses=KeySetSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the published signing keys.

        Called by an agent with its own key. Returns the public keys that verify deploy bundles, as a JSON Web Key Set
        with validity times.
        """
        keys = signing_keys.key_set(self.environment.project.organization_id)
        response = Response(keys.document())
        response["ETag"] = f'"{signing_keys.etag(keys)}"'
        response["Cache-Control"] = "private, max-age=60"
        return response


class HeartbeatViewSet(AgentSelfViewSet):
    """Heartbeats. ``apps.releases.api.agent_path`` handles most of them before Django does, with the same services."""

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

        Called by an agent with its own key. Stores the agent's status, and returns the bundle that the agent should run
        and commands for the agent. A 200 means that the heartbeat is stored durably.
        """
        interval_s = self.environment.effective_settings.heartbeat_interval_s
        body = heartbeats.parse(request.data)
        organization = self.environment.project.organization
        stored = heartbeats.store(
            agent_id=self.agent.pk, organization_id=organization.pk, interval_s=interval_s, heartbeat=body
        )
        if stored is None:
            raise Unauthenticated(UNUSABLE)
        return Response(s.heartbeat_response(self.agent.pk, stored, key_set_etag=organization.key_set_etag))
