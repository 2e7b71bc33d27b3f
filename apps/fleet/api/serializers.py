"""Serializers of agents, enrollment and heartbeats."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.fleet.models import Agent, Command, EnrollmentToken, Liveness
from apps.fleet.services.heartbeats import StoredHeartbeat
from apps.fleet.services.labels import LABEL_KEY, MAX_LABELS, MAX_VALUE, is_label_key
from apps.tenancy.api.serializers.credentials import CREDENTIAL_FIELDS
from apps.tenancy.api.serializers.signing_keys import KeySetSerializer
from byteor.engine.machines import OfferAction
from byteor_cloud.api.fields import ModelSerializer, NameField, StrictSerializer, TextField

MAX_ENROLLMENT_TOKEN_S = 30 * 86400
MAX_USES = 100_000
_LABELS = {
    "type": "object",
    "maxProperties": MAX_LABELS,
    "propertyNames": {"pattern": LABEL_KEY},
    "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
}


@extend_schema_field(_LABELS)
class LabelsField(serializers.DictField):
    """At most 64 labels, with keys of 1 to 128 printable characters and values of at most 255 characters."""

    child = TextField(max_length=MAX_VALUE, allow_blank=True)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Return the checked labels. Raises ValidationError."""
        labels: dict[str, str] = super().to_internal_value(data)
        if len(labels) > MAX_LABELS:
            raise serializers.ValidationError(f"At most {MAX_LABELS} labels.", code="too_many")
        for key in labels:
            if not is_label_key(key):
                raise serializers.ValidationError(
                    {key[:140]: "A key must have 1 to 128 printable characters, without = and ,."}
                )
        return labels


@extend_schema_field({**_LABELS, "minProperties": 1})
class SelectorField(LabelsField):
    """Labels as in ``LabelsField``, but at least one: without any, all agents would match."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_empty=False, **kwargs)


class BundleStateSerializer(StrictSerializer):
    """A bundle, its deployment and a time."""

    deployment_id = serializers.UUIDField(allow_null=True)
    bundle_hash = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "deployment_id": "The deployment that the bundle belongs to. Null if unknown.",
        "since": "When this state began. Null if unknown.",
    }


class DesiredStateSerializer(BundleStateSerializer):
    action = serializers.ChoiceField(list(OfferAction))
    descriptions = {
        "action": "What the agent should do: run this bundle, or roll back to it.",
    }


class RunningStateSerializer(BundleStateSerializer):
    spec_hash = serializers.CharField()


class FailedStateSerializer(BundleStateSerializer):
    detail = serializers.CharField()
    descriptions = {
        "detail": "Why the bundle failed, as the agent reported it.",
    }


def _state(
    deployment_id: UUID | None, bundle_hash: str | None, since: datetime | None, **more: Any
) -> dict[str, Any] | None:
    if bundle_hash is None:
        return None
    return {"deployment_id": deployment_id, "bundle_hash": bundle_hash, "since": since, **more}


# The fields that an agent reports, or that follow from its reports.
REPORTED = frozenset({
    "status", "agent_version", "liveness", "drifted", "last_seen_at", "progress", "desired", "attempted", "running",
    "last_failed", "report", "clone_suspected_at",
})  # fmt: skip


class AgentSerializer(ModelSerializer):
    """An agent. Its four deployment states are separate, so that a local rollback never hides a failed attempt."""

    name = NameField(required=False)
    labels = LabelsField(required=False)
    status = serializers.CharField(source="heartbeat.status", read_only=True, allow_null=True)
    agent_version = serializers.CharField(source="heartbeat.agent_version", read_only=True, allow_null=True)
    last_seen_at = serializers.DateTimeField(source="heartbeat.last_seen_at", read_only=True, allow_null=True)
    report = serializers.DictField(source="heartbeat.report", read_only=True)
    liveness = serializers.ChoiceField(list(Liveness), read_only=True)
    drifted = serializers.BooleanField(read_only=True)
    progress = serializers.CharField(source="assignment.progress", read_only=True)
    drained_at = serializers.DateTimeField(read_only=True, allow_null=True)
    drain_reason = serializers.CharField(read_only=True)
    clone_suspected_at = serializers.DateTimeField(
        source="heartbeat.clone_suspected_at", read_only=True, allow_null=True
    )
    desired = serializers.SerializerMethodField()
    attempted = serializers.SerializerMethodField()
    running = serializers.SerializerMethodField()
    last_failed = serializers.SerializerMethodField()
    reads = frozenset({"assignment__failed_detail"})

    descriptions = {
        "name": "The agent's name, unique in the environment.",
        "hostname": "The name of the host, as the agent reported it at enrollment.",
        "labels": "Key-value pairs by which selectors choose agents. At most 64.",
        "status": "The status in the agent's last heartbeat. Null before the first heartbeat.",
        "agent_version": "The version of the agent program. Null before the first heartbeat.",
        "liveness": "Whether heartbeats arrive as expected.",
        "drifted": "Whether the agent runs another bundle than it should run.",
        "drained_at": "Since when the agent gets no new offers. Null if it is not drained.",
        "drain_reason": "Why the agent was drained. Empty if it is not drained, or if no reason was given.",
        "clone_suspected_at": "Since when two machines seem to use the agent's key: a `boot_id` that another had "
        "replaced came back within 24 hours. Null if not. A rotation of the key by a person, with `mode: now`, clears "
        "it. Until then the agent cannot rotate its key itself.",
        "last_seen_at": "When the last heartbeat arrived. Null before the first heartbeat.",
        "progress": "The agent's progress with its current offer.",
        "desired": "The bundle that the agent should run. Null if no bundle was offered.",
        "attempted": "The bundle that the agent tried to run last. Null if it has not tried any.",
        "running": "The bundle that the agent runs, according to its last heartbeat. Null if it runs none.",
        "last_failed": "The bundle that failed on the agent last. Null if none has failed.",
        "report": "The other fields of the last heartbeat: tuning, resources, pipeline counters.",
    }

    class Meta:
        model = Agent
        fields = [
            "id", "environment_id", "name", "hostname", "labels", "status", "agent_version", "liveness", "drifted",
            "last_seen_at", "progress", "desired", "attempted", "running", "last_failed", "report",
            "drained_at", "drain_reason", "clone_suspected_at", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = ["hostname"]

    @extend_schema_field(DesiredStateSerializer(allow_null=True))
    def get_desired(self, agent: Agent) -> Any:
        """Return what the agent should run."""
        a = agent.assignment
        return _state(a.deployment_id, a.bundle_hash, a.since, action=a.action)

    @extend_schema_field(BundleStateSerializer(allow_null=True))
    def get_attempted(self, agent: Agent) -> Any:
        """Return what the agent tried to run last."""
        a = agent.assignment
        return _state(a.attempted_deployment_id, a.attempted_bundle_hash, a.attempted_since)

    @extend_schema_field(RunningStateSerializer(allow_null=True))
    def get_running(self, agent: Agent) -> Any:
        """Return what the agent runs, as its last heartbeat says."""
        h = agent.heartbeat
        return _state(h.running_deployment_id, h.running_bundle_hash, h.running_since, spec_hash=h.running_spec_hash)

    @extend_schema_field(FailedStateSerializer(allow_null=True))
    def get_last_failed(self, agent: Agent) -> Any:
        """Return what failed on the agent last, and why."""
        a = agent.assignment
        return _state(a.failed_deployment_id, a.failed_bundle_hash, a.failed_since, detail=a.failed_detail)


class EnrollSerializer(StrictSerializer):
    """The request of an agent to enroll."""

    name = NameField(required=False)
    hostname = TextField(pattern="^[A-Za-z0-9._:-]{1,253}$", rule="Must be a host name.", required=False)
    labels = LabelsField(required=False)
    public_key = TextField(required=False, max_length=2000)
    descriptions = {
        "name": "The agent's name, unique in the environment. Default: made from `hostname`.",
        "hostname": "The name of the host.",
        "labels": "The agent's labels. If the enrollment token has the same label, the token's value is used.",
        "public_key": "A public key of the agent. The service only stores it for you.",
    }


class EnrolledSerializer(serializers.Serializer[Any]):
    """The response to an enrollment, the only one that contains the agent key."""

    agent_id = serializers.UUIDField()
    api_key = serializers.CharField()
    name = serializers.CharField()
    environment_id = serializers.UUIDField()
    heartbeat_interval_s = serializers.IntegerField()
    signing_keys = KeySetSerializer()
    descriptions = {
        "agent_id": "The agent's id, for the paths below `/api/v1/agents/{id}`.",
        "api_key": "The agent key. It is shown only in this response.",
        "name": "The agent's name.",
        "environment_id": "The environment in which the agent was enrolled.",
        "heartbeat_interval_s": "The time between two heartbeats, in seconds.",
        "signing_keys": "The keys with which the agent verifies deploy bundles.",
    }


class RotationMode(StrEnum):
    """Who fetches the new key: the caller gets it now, or the agent is told to fetch it."""

    NOW = "now"
    BY_AGENT = "by_agent"


class RotateKeySerializer(StrictSerializer):
    mode = serializers.ChoiceField(list(RotationMode), required=False, default=RotationMode.NOW)
    descriptions = {
        "mode": "`now`: the response contains the new key, and the old one is refused at once. `by_agent`: the agent "
        "is told to fetch a new key itself. Default: `now`.",
    }


class RequestedRotationSerializer(serializers.Serializer[Any]):
    agent_id = serializers.UUIDField()
    mode = serializers.ChoiceField([RotationMode.BY_AGENT])
    descriptions = {
        "mode": "The agent fetches the new key itself.",
    }


class DrainSerializer(StrictSerializer):
    reason = TextField(max_length=500, required=False, allow_blank=True, default="")
    descriptions = {
        "reason": "Why, for the audit event and for the explanation of the agent.",
    }


class RotatedKeySerializer(serializers.Serializer[Any]):
    agent_id = serializers.UUIDField()
    token = serializers.CharField()
    descriptions = {
        "token": "The new agent key. It is shown only in this response.",
    }


class EnrollmentTokenSerializer(ModelSerializer):
    expires_in_s = serializers.IntegerField(
        write_only=True, required=False, min_value=60, max_value=MAX_ENROLLMENT_TOKEN_S
    )
    max_uses = serializers.IntegerField(required=False, min_value=1, max_value=MAX_USES)
    labels = LabelsField(required=False)
    replace = serializers.BooleanField(required=False)
    expires_at = serializers.DateTimeField(read_only=True)

    descriptions = {
        "prefix": "The first characters of the secret, by which you recognize the token.",
        "expires_in_s": "Seconds until the token expires. Default: 3600.",
        "expires_at": "When the token expires.",
        "last_used_at": "When the token was last used. Null if it was never used.",
        "revoked_at": "When the token was revoked. Null if it was not revoked.",
        "environment_id": "The environment in which the token enrolls agents.",
        "max_uses": "How many agents can enroll with the token. Default: 1.",
        "uses": "How many agents have enrolled with the token.",
        "labels": "Labels for every agent that enrolls with the token.",
        "replace": (
            "Whether an agent that enrolls may take over the name of an existing agent. The existing agent is then "
            "replaced, and its key is revoked. Default: false."
        ),
    }

    class Meta:
        model = EnrollmentToken
        fields = [
            *(f for f in CREDENTIAL_FIELDS if f != "name"),
            "environment_id",
            "max_uses",
            "uses",
            "labels",
            "replace",
            "expires_in_s",
        ]
        read_only_fields = ["prefix"]


class OfferSerializer(serializers.Serializer[Any]):
    deployment_id = serializers.UUIDField()
    action = serializers.ChoiceField(list(OfferAction))
    bundle_hash = serializers.CharField()
    bundle_url = serializers.CharField()
    offered_at = serializers.DateTimeField()
    descriptions = {
        "deployment_id": "The deployment that the offer belongs to.",
        "action": "What the agent should do: `activate` the bundle, or `rollback` to it.",
        "bundle_hash": "The SHA-256 of the deploy bundle to run.",
        "bundle_url": "The path of the deploy bundle on this server.",
        "offered_at": "When the bundle was offered. If this time changes, the same bundle is a new offer.",
    }


class HeartbeatAnswerSerializer(serializers.Serializer[Any]):
    server_time = serializers.DateTimeField()
    next_heartbeat_s = serializers.FloatField()
    desired = OfferSerializer(allow_null=True)
    signing_key_etag = serializers.CharField()
    commands = serializers.ListField(child=serializers.ChoiceField(list(Command)))
    descriptions = {
        "server_time": "The server's time.",
        "next_heartbeat_s": "Seconds until the next heartbeat should be sent.",
        "desired": "What the agent should run. Null if no bundle was offered.",
        "signing_key_etag": "The ETag of the signing keys. Fetch the keys again when it changes.",
        "commands": "What the agent should do now. `rotate_key`: fetch a new key with `rotateOwnKey`, store it, and "
        "use it from then on. Ignore commands that you do not know.",
    }


def offer(
    agent_id: UUID, *, deployment_id: UUID | None, action: str | None, bundle_hash: str, offered_at: datetime | None
) -> dict[str, Any]:
    """Return the JSON of an offer. The URL of the bundle is a path on the same origin."""
    return {
        "deployment_id": str(deployment_id),
        "action": action,
        "bundle_hash": bundle_hash,
        "bundle_url": f"/api/v1/agents/{agent_id}/deployment/bundle?hash={bundle_hash}",
        "offered_at": None if offered_at is None else _text(offered_at),
    }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def heartbeat_answer(agent_id: UUID, answer: StoredHeartbeat, *, key_set_etag: str) -> dict[str, Any]:
    """Return the JSON response to a heartbeat. It uses no serializer, since it runs thousands of times a second."""
    desired = None
    if answer.bundle_hash is not None:
        desired = offer(
            agent_id,
            deployment_id=answer.deployment_id,
            action=answer.action,
            bundle_hash=answer.bundle_hash,
            offered_at=answer.offered_at,
        )
    return {
        "server_time": _text(answer.server_time),
        "next_heartbeat_s": answer.next_heartbeat_s,
        "desired": desired,
        "signing_key_etag": key_set_etag,
        "commands": answer.commands,
    }
