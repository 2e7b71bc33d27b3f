"""Serializers of fixtures."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services.fixtures import NO_MEMBER
from apps.tenancy.models import User
from byteor_cloud.api.fields import (
    EnvironmentRelatedField,
    IdField,
    ModelSerializer,
    NameField,
    StrictSerializer,
    TextField,
    TimestampField,
)

MAX_POSITION = 2_000_000_000
_OWNER = "The id of the person who is responsible for the fixture. A new owner must have access to the project."
_EXPECT = (
    "The expected result. `same`: the result of the configuration that the candidate is compared with. "
    "`golden`: the result of the replay with this id. The replay must have the same artifact, `journal_lane` and "
    "`last_n` as the fixture."
)
_EXPIRES = (
    "When the fixture expires. An expired fixture is not tested, and no longer protects its artifact from retention."
)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "enum": ["same"]},
            {
                "type": "object",
                "properties": {
                    "golden": {
                        "type": "string",
                        "format": "uuid",
                        "description": "The id of the replay whose result is expected. The fixture keeps a copy of "
                        "the result.",
                    }
                },
                "required": ["golden"],
                "additionalProperties": False,
            },
        ]
    }
)
class ExpectField(serializers.Field[Any, Any, Any, Any]):
    """The expectation of a fixture: the result of a baseline, or the result of a replay."""

    def to_internal_value(self, data: Any) -> UUID | None:
        """Return the id of the golden replay, or None for ``same``. Raises ValidationError."""
        if data == "same":
            return None
        if isinstance(data, dict) and data.keys() == {"golden"}:
            try:
                found: UUID = IdField().to_internal_value(data["golden"])
            except serializers.ValidationError as error:
                raise serializers.ValidationError({"golden": error.detail}) from None
            return found
        raise serializers.ValidationError('Must be "same" or {"golden": REPLAY_ID}.')

    def to_representation(self, value: Any) -> Any:
        """Return the expectation in the form that requests use."""
        return value


class OwnerField(serializers.PrimaryKeyRelatedField[Any]):
    """The id of a user. The service checks that the user is a member."""

    default_error_messages = {"does_not_exist": NO_MEMBER, "incorrect_type": "Must be an id."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(queryset=User.objects.all(), pk_field=IdField(), **kwargs)

    def run_validation(self, data: Any = empty) -> Any:
        """Return the user, or None for null if it is allowed. Raises ValidationError, also for an empty string."""
        if data == "":
            self.fail("incorrect_type")
        return super().run_validation(data)


class CreateFixtureSerializer(StrictSerializer):
    """The request to keep a capture as a fixture."""

    artifact_id = EnvironmentRelatedField(
        source="artifact",
        queryset=Artifact.objects.select_related("environment__project", "agent", "deployment__config_bundle"),
        what="artifact",
    )
    name = NameField()
    pipeline = NameField(max_length=63, required=False)
    owner = OwnerField(required=False)
    note = TextField(max_length=2000, required=False, allow_blank=True)
    journal_lane = TextField(pattern="^[a-z][a-z0-9_-]{0,62}$", rule="Must be the name of a lane.", required=False)
    last_n = serializers.IntegerField(required=False, min_value=1, max_value=MAX_POSITION)
    records = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=MAX_POSITION),
        min_length=2,
        max_length=2,
        required=False,
    )
    expires_at = TimestampField(required=False)
    expect = ExpectField(required=False)
    descriptions = {
        "artifact_id": "The id of a verified incident bundle.",
        "name": "The name of the fixture, unique in its pipeline.",
        "pipeline": "The name of the pipeline to which the capture must belong. By default, the capture may belong to "
        "any pipeline.",
        "owner": f"{_OWNER} Defaults to the caller, or to nobody if the caller is an organization key.",
        "note": "Why the capture is kept.",
        "journal_lane": "The ingress whose journal is replayed. By default, all journals are replayed together.",
        "last_n": "The number of records to replay from the end of the input. Defaults to all records.",
        "records": (
            "The positions of the first and the last record to keep, counted from 0 in the order of a replay. The "
            "artifact of the fixture is then a reduced copy of the capture, with only these records, at most 10,000. "
            "Not accepted with `last_n` or a golden replay."
        ),
        "expires_at": f"{_EXPIRES} By default, the fixture does not expire.",
        "expect": f"{_EXPECT} Defaults to `same`.",
    }


class AlsoExpectedSerializer(serializers.Serializer[Any]):
    config_hash = serializers.CharField()
    deployment_id = serializers.UUIDField()
    descriptions = {
        "config_hash": "The config hash of the deployment.",
        "deployment_id": "The id of the deployment, even if it was deleted.",
    }


class FixtureSerializer(ModelSerializer):
    name = NameField()
    owner = OwnerField(allow_null=True)
    note = TextField(max_length=2000, allow_blank=True)
    expires_at = TimestampField(allow_null=True)
    expect = ExpectField()
    also_expected = AlsoExpectedSerializer(many=True, read_only=True)
    records = serializers.SerializerMethodField()
    is_expired = serializers.BooleanField(read_only=True)
    reads = frozenset({"artifact__origin"})

    descriptions = {
        "pipeline": "The name of the pipeline.",
        "name": "The name of the fixture, unique in its pipeline.",
        "owner": f"{_OWNER} Null if the fixture has no owner.",
        "note": "Why the capture is kept.",
        "artifact_id": "The id of the artifact whose records are replayed. Retention deletes the artifact only after "
        "the fixture has expired or was deleted.",
        "journal_lane": "The ingress whose journal is replayed. Null if all journals are replayed together.",
        "last_n": "The number of records to replay from the end of the input. Null if all records are replayed.",
        "records": "Which records of the original artifact the fixture's artifact contains: the positions of the first "
        "and the last. The original artifact is the `origin` of the fixture's artifact. Null if an agent uploaded the "
        "fixture's artifact.",
        "expires_at": f"{_EXPIRES} Null if it does not expire.",
        "is_expired": "Whether the fixture has expired.",
        "expect": _EXPECT,
        "also_expected": "The deployments whose results a fixture with a golden result also expects, at most the "
        "newest 20, newest first. A deployment is added after it has become current, if all its differences on this "
        "fixture were accepted. Results of configurations that are known bad are not expected. A candidate that gives "
        "none of the expected results is compared with the configuration of the newest deployment in this list. If "
        "that configuration is known bad or was too large to be kept, the candidate is compared with the configuration "
        "of the golden result. A change of `expect` clears the list.",
    }

    class Meta:
        model = Fixture
        fields = [
            "id", "environment_id", "pipeline", "name", "owner", "note", "artifact_id", "journal_lane", "last_n",
            "records", "expires_at", "is_expired", "expect", "also_expected", "created_by", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = ["pipeline", "journal_lane", "last_n", "created_by"]

    @extend_schema_field({"type": ["array", "null"], "items": {"type": "integer"}, "minItems": 2, "maxItems": 2})
    def get_records(self, row: Fixture) -> list[int] | None:
        """Return the positions of the first and the last record in the artifact's origin; None without an origin."""
        return None if row.artifact.origin is None else row.artifact.origin["records"]
