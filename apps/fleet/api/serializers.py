"""Serializers of agents, enrollment, heartbeats and series."""

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
    """At most 64 labels: keys of 1 to 128 printable characters without ``=`` or commas, values of at most 255."""

    child = TextField(max_length=MAX_VALUE, allow_blank=True)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Return the checked labels. Raises ValidationError."""
        labels: dict[str, str] = super().to_internal_value(data)
        if len(labels) > MAX_LABELS:
            raise serializers.ValidationError(f"Must have at most {MAX_LABELS} labels.", code="too_many")
        for key in labels:
            if not is_label_key(key):
                raise serializers.ValidationError(
                    {key[:140]: "A key must have 1 to 128 printable characters, without = or commas."}
                )
        return labels


@extend_schema_field({**_LABELS, "minProperties": 1})
class SelectorField(LabelsField):
    """Labels as in ``LabelsField``, but at least one, because an empty selector would match all agents."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_empty=False, **kwargs)


class BundleStateSerializer(StrictSerializer):
    """A bundle that was offered to the agent, and the deployment that offered it."""

    deployment_id = serializers.UUIDField(allow_null=True)
    bundle_hash = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "deployment_id": "The id of the deployment that offered the bundle. For a rollback, this is the deployment "
        "that is rolled back. Null if unknown.",
        "since": "When the agent began to report progress with this bundle for this deployment. Null if unknown.",
    }


class DesiredStateSerializer(BundleStateSerializer):
    action = serializers.ChoiceField(list(OfferAction))
    descriptions = {
        "action": "Whether the agent should activate this bundle or roll back to it.",
        "since": "When the bundle was offered. Null if unknown.",
    }


class RunningStateSerializer(BundleStateSerializer):
    """A bundle that the agent runs, and the deployment for which it was built."""

    spec_hash = serializers.CharField()
    descriptions = {
        "deployment_id": "The id of the deployment for which the bundle was built. Null if unknown.",
        "since": "When heartbeats began to report that the agent runs this bundle. Null if unknown.",
    }


class FailedStateSerializer(BundleStateSerializer):
    detail = serializers.CharField()
    descriptions = {
        "detail": "Why the agent failed. If the agent reported the failure, this is the reason that it gave, which may "
        "be empty. Otherwise, it is a text that states that the agent did not finish in time.",
        "since": "When the failure was recorded. Null if unknown.",
    }


def _state(
    deployment_id: UUID | None, bundle_hash: str | None, since: datetime | None, **more: Any
) -> dict[str, Any] | None:
    if bundle_hash is None:
        return None
    return {"deployment_id": deployment_id, "bundle_hash": bundle_hash, "since": since, **more}


# Fields that change often, mostly because of the agent's reports. ``If-Match`` ignores them.
REPORTED = frozenset({
    "status", "agent_version", "liveness", "drifted", "last_seen_at", "progress", "desired", "attempted", "running",
    "last_failed", "report", "clone_suspected_at",
})  # fmt: skip


class AgentSerializer(ModelSerializer):
    """An agent.

    `last_failed` keeps the last failure, even if the agent has returned to an earlier bundle since.
    """

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
        "hostname": "The host name that the agent reported when it enrolled. Empty if it reported none.",
        "labels": "The agent's labels: up to 64 key-value pairs, which selectors match.",
        "status": "The status that the last heartbeat reported. Null before the first heartbeat.",
        "agent_version": "The version of the agent program. Null before the first heartbeat.",
        "liveness": "Whether the agent's heartbeats arrive on time. Without a heartbeat, an agent is `stale` after "
        "three heartbeat intervals and `offline` after ten.",
        "drifted": "Whether the agent does not run the bundle that it should run. False if it should run none.",
        "drained_at": "When the agent was drained. Null if it is not drained.",
        "drain_reason": "Why the agent was drained. Empty if it is not drained, or if no reason was given.",
        "clone_suspected_at": "When the service detected that two machines seem to use the agent's key: a `boot_id` "
        "that had been replaced was reported again within 24 hours. Null if no clone is suspected. Until a person "
        "rotates the key with `mode: now`, which clears this field, the agent cannot rotate the key itself.",
        "last_seen_at": "When the last heartbeat arrived. Null before the first heartbeat.",
        "progress": "The agent's progress on its current offer: `pending` if it has no offer.",
        "desired": "The bundle that the agent should run. Null if it should run none.",
        "attempted": "The bundle that the agent last reported progress on. Null if it has reported none.",
        "running": "The bundle that the agent runs, according to its last heartbeat. Null if it runs none, or before "
        "the first heartbeat.",
        "last_failed": "The bundle that last failed on the agent. Null if none has failed.",
        "report": "Other fields of the last heartbeat, such as tuning, resources and pipeline counters. Empty before "
        "the first heartbeat.",
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
        """Return the bundle that the agent should run, or None."""
        a = agent.assignment
        return _state(a.deployment_id, a.bundle_hash, a.since, action=a.action)

    @extend_schema_field(BundleStateSerializer(allow_null=True))
    def get_attempted(self, agent: Agent) -> Any:
        """Return the bundle that the agent last reported progress on, or None."""
        a = agent.assignment
        return _state(a.attempted_deployment_id, a.attempted_bundle_hash, a.attempted_since)

    @extend_schema_field(RunningStateSerializer(allow_null=True))
    def get_running(self, agent: Agent) -> Any:
        """Return the bundle that the agent runs according to its last heartbeat, or None."""
        h = agent.heartbeat
        return _state(h.running_deployment_id, h.running_bundle_hash, h.running_since, spec_hash=h.running_spec_hash)

    @extend_schema_field(FailedStateSerializer(allow_null=True))
    def get_last_failed(self, agent: Agent) -> Any:
        """Return the bundle that last failed on the agent, with the reason, or None."""
        a = agent.assignment
        return _state(a.failed_deployment_id, a.failed_bundle_hash, a.failed_since, detail=a.failed_detail)


class EnrollSerializer(StrictSerializer):
    """The request to enroll a host as an agent."""

    name = NameField(required=False)
    hostname = TextField(pattern="^[A-Za-z0-9._:-]{1,253}$", rule="Must be a host name.", required=False)
    labels = LabelsField(required=False)
    public_key = TextField(required=False, max_length=2000)
    descriptions = {
        "name": "The agent's name, unique in the environment. Defaults to a name derived from `hostname`, or from "
        "`agent` if `hostname` is missing.",
        "hostname": "The host name of the agent's machine.",
        "labels": "The agent's labels. A label of the enrollment token overrides a label with the same key.",
        "public_key": "A public key of the agent. The service stores it but does not use it.",
    }


class EnrolledSerializer(serializers.Serializer[Any]):
    """The response to an enrollment. It is the only response that contains the agent key."""

    agent_id = serializers.UUIDField()
    api_key = serializers.CharField()
    name = serializers.CharField()
    environment_id = serializers.UUIDField()
    heartbeat_interval_s = serializers.IntegerField()
    signing_keys = KeySetSerializer()
    descriptions = {
        "agent_id": "The agent's id, used in the paths below `/api/v1/agents/{id}`.",
        "api_key": "The agent key. It is shown only in this response.",
        "name": "The agent's name.",
        "environment_id": "The id of the environment in which the agent was enrolled.",
        "heartbeat_interval_s": "The usual number of seconds between two heartbeats.",
        "signing_keys": "The public keys with which the agent verifies deploy bundles.",
    }


class RotationMode(StrEnum):
    """Who receives the new key: the caller, immediately, or the agent, which fetches the key itself."""

    NOW = "now"
    BY_AGENT = "by_agent"


class RotateKeySerializer(StrictSerializer):
    mode = serializers.ChoiceField(list(RotationMode), required=False, default=RotationMode.NOW)
    descriptions = {
        "mode": "`now`: the response contains the new key, and the old keys are revoked immediately. `by_agent`: the "
        "agent is asked to fetch a new key itself. Defaults to `now`.",
    }


class RequestedRotationSerializer(serializers.Serializer[Any]):
    agent_id = serializers.UUIDField()
    mode = serializers.ChoiceField([RotationMode.BY_AGENT])
    descriptions = {
        "mode": "Always `by_agent`: the agent fetches the new key itself.",
    }


class DrainSerializer(StrictSerializer):
    reason = TextField(max_length=500, required=False, allow_blank=True, default="")
    descriptions = {
        "reason": "Why the agent is drained or undrained. The audit event records the reason. The reason of a drain is "
        "also shown as `drain_reason` until the agent is undrained.",
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
        "prefix": "The first characters of the secret, which help you recognize the token.",
        "expires_in_s": "The seconds until the token expires. Defaults to 3600.",
        "expires_at": "When the token expires.",
        "last_used_at": "When the token was last used. Null if it has never been used.",
        "revoked_at": "When the token was revoked. Null if it has not been revoked.",
        "environment_id": "The id of the environment in which the token enrolls agents.",
        "max_uses": "How many agents can enroll with the token. Defaults to 1.",
        "uses": "How many agents have enrolled with the token.",
        "labels": "Labels that each agent gets when it enrolls with the token.",
        "replace": (
            "Whether a new agent may take over the name of an existing agent. The existing agent is then "
            "decommissioned, and its key is revoked. Defaults to false."
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
        "deployment_id": "The id of the deployment that the offer belongs to.",
        "action": "Whether the agent should activate the bundle (`activate`) or roll back to it (`rollback`).",
        "bundle_hash": "The SHA-256 of the deploy bundle to run.",
        "bundle_url": "The path of the deploy bundle on this server.",
        "offered_at": "When the bundle was offered. A different time means a new offer, even of the same bundle.",
    }


class HeartbeatAnswerSerializer(serializers.Serializer[Any]):
    server_time = serializers.DateTimeField()
    next_heartbeat_s = serializers.FloatField()
    desired = OfferSerializer(allow_null=True)
    signing_key_etag = serializers.CharField()
    commands = serializers.ListField(child=serializers.ChoiceField(list(Command)))
    descriptions = {
        "server_time": "The server's time.",
        "next_heartbeat_s": "The seconds after which the agent should send its next heartbeat.",
        "desired": "The bundle that the agent should run. Null if it should run none, or while its offer is held after "
        "a restore.",
        "signing_key_etag": "The ETag of the signing keys, without its quotation marks. If it has changed, fetch the "
        "keys again.",
        "commands": "Commands for the agent. `rotate_key`: fetch a new key with `rotateOwnKey`, store it, and use it "
        "from then on. `capture`: fetch the request with `getPendingCapture`, and upload the capture. A command is "
        "repeated until it is carried out or obsolete. Ignore unknown commands.",
    }


def offer(
    agent_id: UUID, *, deployment_id: UUID | None, action: str | None, bundle_hash: str, offered_at: datetime | None
) -> dict[str, Any]:
    """Return an offer as JSON. The bundle URL is a path on this server."""
    return {
        "deployment_id": str(deployment_id),
        "action": action,
        "bundle_hash": bundle_hash,
        "bundle_url": f"/api/v1/agents/{agent_id}/deployment/bundle?hash={bundle_hash}",
        "offered_at": None if offered_at is None else _text(offered_at),
    }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def heartbeat_response(agent_id: UUID, stored: StoredHeartbeat, *, key_set_etag: str) -> dict[str, Any]:
    """Return the JSON response to a heartbeat. Uses no serializer, because it runs thousands of times a second."""
    desired = None
    if stored.bundle_hash is not None:
        desired = offer(
            agent_id,
            deployment_id=stored.deployment_id,
            action=stored.action,
            bundle_hash=stored.bundle_hash,
            offered_at=stored.offered_at,
        )
    return {
        "server_time": _text(stored.server_time),
        "next_heartbeat_s": stored.next_heartbeat_s,
        "desired": desired,
        "signing_key_etag": key_set_etag,
        "commands": stored.commands,
    }


class SeriesPointSerializer(StrictSerializer):
    """The values that heartbeats reported in one slot of 15 minutes."""

    at = serializers.DateTimeField()
    records_in = serializers.IntegerField(allow_null=True)
    records_out = serializers.IntegerField(allow_null=True)
    drops = serializers.IntegerField(allow_null=True)
    errors = serializers.IntegerField(allow_null=True)  # type: ignore[assignment]  # DRF removes it from the class
    cpu_percent = serializers.FloatField(allow_null=True)
    memory_bytes = serializers.IntegerField(allow_null=True)
    restarts = serializers.IntegerField(allow_null=True)
    online = serializers.IntegerField()
    descriptions = {
        "at": "The start of the slot, a multiple of 15 minutes.",
        "records_in": "The increase of `records_in` in the slot. Null if it was not reported.",
        "records_out": "The increase of `records_out` in the slot. Null if it was not reported.",
        "drops": "The increase of `drops` in the slot. Null if it was not reported.",
        "errors": "The increase of `errors` in the slot. Null if it was not reported.",
        "cpu_percent": "For an agent, the mean of `cpu_percent` over the heartbeats of the slot that report it. For an "
        "environment, the sum of its agents' means. Null if it was not reported.",
        "memory_bytes": "For an agent, the mean of `memory_bytes` over the heartbeats of the slot that report it. For "
        "an environment, the sum of its agents' means. Null if it was not reported.",
        "restarts": "The number of restarts of agents' processes. A restart is recognized by a new `boot_id`, or by a "
        "lower `uptime_s` if the agent sends no `boot_id`. An agent's first start does not count. Null if no heartbeat "
        "was received.",
        "online": "The number of agents that sent a heartbeat in the slot: 0 or 1 for an agent.",
    }


class SeriesSerializer(StrictSerializer):
    """Values by slots of 15 minutes."""

    step_s = serializers.IntegerField()
    points = SeriesPointSerializer(many=True)
    descriptions = {
        "step_s": "The length of a slot in seconds: always 900.",
        "points": "One point for each slot in the time range, oldest first, even if no heartbeat was received in the "
        "slot. Slots older than 90 days are left out, so there are at most 8,640 points. For an environment with more "
        "than 1,000 agents, the newest slots are left out as well (see `getEnvironmentSeries`).",
    }
