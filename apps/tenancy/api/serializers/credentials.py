"""User tokens, organization API keys, and the caller."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.models import OrganizationKey, User, UserToken
from apps.tenancy.permissions import Role
from byteor_cloud.api.fields import IdField, ModelSerializer, NameField

MAX_TOKEN_S = 3650 * 86400


CREDENTIAL_FIELDS = ["id", "name", "prefix", "expires_at", "last_used_at", "revoked_at", "created_at"]


class UserTokenSerializer(ModelSerializer):
    name = NameField()
    expires_in_s = serializers.IntegerField(write_only=True, required=False, min_value=60, max_value=MAX_TOKEN_S)
    expires_at = serializers.DateTimeField(read_only=True)

    descriptions = {
        "name": "A name by which you recognize the token.",
        "prefix": "The first characters of the secret, by which you recognize the token.",
        "expires_in_s": (
            "The number of seconds until the token expires. The maximum is the lowest `token_max_days` of the person's "
            "organizations, or 90 days if the person is in no organization. Defaults to 30 days, or to the maximum if "
            "that is shorter."
        ),
        "expires_at": "When the token expires.",
        "last_used_at": "When the token was last used, to the minute. Null if it was never used.",
        "revoked_at": "When the token was revoked. Null if it was not revoked.",
    }

    class Meta:
        model = UserToken
        fields = [*CREDENTIAL_FIELDS, "expires_in_s"]
        read_only_fields = ["prefix"]


class OrganizationKeySerializer(ModelSerializer):
    name = NameField()
    role = serializers.ChoiceField(list(Role))
    project_id = IdField(required=False, allow_null=True)
    expires_in_s = serializers.IntegerField(write_only=True, required=False, min_value=60, max_value=MAX_TOKEN_S)
    expires_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.EmailField(source="created_by.email", read_only=True, allow_null=True, default=None)

    descriptions = {
        "name": "A name by which you recognize the key, unique among the organization's keys that are not revoked.",
        "prefix": "The first characters of the secret, by which you recognize the key.",
        "role": "The role of the key.",
        "project_id": (
            "The id of the only project in which the key has its role. Null if the role applies to the whole "
            "organization."
        ),
        "expires_in_s": (
            "The number of seconds until the key expires. The maximum is the organization's `token_max_days`. Defaults "
            "to 30 days, or to the maximum if that is shorter."
        ),
        "expires_at": "When the key expires.",
        "last_used_at": "When the key was last used, to the minute. Null if it was never used.",
        "revoked_at": "When the key was revoked. Null if it was not revoked.",
        "created_by": (
            "The e-mail address of the person who created the key. If another organization API key created "
            "this key, the address of the person who created the other key. This person counts as the requester of "
            "everything that the key requests. Empty if the address is unknown. Null if the person is unknown. In that "
            "case, the key cannot request anything that needs an approval."
        ),
    }

    class Meta:
        model = OrganizationKey
        fields = [*CREDENTIAL_FIELDS, "role", "project_id", "created_by", "expires_in_s"]
        read_only_fields = ["prefix"]


class UserSerializer(ModelSerializer):
    descriptions = {
        "id": "The person's id.",
        "email": "The person's e-mail address. Empty if it is unknown.",
        "name": "The person's name. Empty if it is unknown.",
    }

    class Meta:
        model = User
        fields = ["id", "email", "name"]


class RoleSerializer(serializers.Serializer[Any]):
    organization_id = serializers.UUIDField()
    project_id = serializers.UUIDField(allow_null=True)
    role = serializers.ChoiceField(list(Role))
    descriptions = {
        "organization_id": "The id of the organization in which the role applies.",
        "project_id": "The id of the project in which the role applies. Null if it applies to the whole organization.",
        "role": "The role.",
    }


class CredentialSerializer(serializers.Serializer[Any]):
    family = serializers.CharField()
    id = serializers.UUIDField()
    prefix = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "family": "The family: `usr` (user token) or `org` (organization API key).",
        "prefix": "The first characters of the secret.",
        "expires_at": "When the credential expires. Null if it does not expire.",
    }


class MeSerializer(serializers.Serializer[Any]):
    """The caller: the person (if any), the credential, and the credential's roles."""

    user = UserSerializer(allow_null=True)
    credential = CredentialSerializer()
    roles = RoleSerializer(many=True)
    descriptions = {
        "user": "The person to whom the credential belongs. Null for an organization API key.",
        "credential": "The credential of this request.",
        "roles": "The roles of the credential. A user token has all roles of the person.",
    }
