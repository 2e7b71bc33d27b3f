"""Organizations, projects, environments and their members."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.api.serializers.settings import (
    EnvironmentSettingsField,
    EnvironmentSettingsSerializer,
    OrganizationSettingsField,
    OrganizationSettingsSerializer,
)
from apps.tenancy.models import Environment, Membership, Organization, Project
from apps.tenancy.permissions import Role
from byteor_cloud.api.fields import ModelSerializer, NameField, TextField

MAX_POSITION = 1_000_000  # in practice, no project has this many environments


class SlugField(TextField):
    """A short name: 1 to 63 lower-case letters, digits and dashes, not starting with a dash."""

    def __init__(self, **kwargs: Any) -> None:
        rule = "Must be 1 to 63 lower-case letters, digits and dashes, and must not start with a dash."
        super().__init__(pattern="^[a-z0-9][a-z0-9-]{0,62}$", rule=rule, **kwargs)


class OrganizationSerializer(ModelSerializer):
    name = NameField()
    slug = SlugField(required=False)
    settings = OrganizationSettingsField(OrganizationSettingsSerializer, required=False)

    descriptions = {
        "name": "The organization's name, unique in the installation.",
        "slug": "A short name, unique in the installation, for example for commands. By default, it is derived from "
        "the name at creation, or random if the name has no usable characters.",
        "settings": "The organization's settings. An update changes only the keys that it contains.",
    }

    class Meta:
        model = Organization
        fields = ["id", "name", "slug", "settings", "created_at", "updated_at"]


class ProjectSerializer(ModelSerializer):
    name = NameField()
    slug = SlugField(required=False)

    descriptions = {
        "name": "The project's name, unique in the organization.",
        "slug": "A short name, unique in the organization. By default, it is derived from the name at creation, or "
        "random if the name has no usable characters.",
    }

    class Meta:
        model = Project
        fields = ["id", "organization_id", "name", "slug", "created_at", "updated_at"]


class EnvironmentSerializer(ModelSerializer):
    name = NameField()
    settings = EnvironmentSettingsField(EnvironmentSettingsSerializer, required=False)
    position = serializers.IntegerField(required=False, min_value=1, max_value=MAX_POSITION)

    descriptions = {
        "name": "The environment's name, unique in the project.",
        "posture": "How strict the environment's default settings are. The posture cannot be changed after creation.",
        "settings": "The environment's settings. An update changes only the keys that it contains.",
        "position": "The environment's place in the order of the project's environments, counted from 1. By default, a "
        "new environment is the last one. When an environment is moved, the positions of the environments between its "
        "old and its new position change by 1. When an environment is inserted or deleted, the positions of the "
        "following ones increase or decrease by 1. A position that is greater than the number of environments "
        "is refused with 400. A new environment counts in this number.",
    }

    class Meta:
        model = Environment
        fields = ["id", "project_id", "name", "posture", "settings", "position", "created_at", "updated_at"]

    def validate_posture(self, value: str) -> str:
        """Reject a change of the posture."""
        if isinstance(self.instance, Environment) and value != self.instance.posture:
            raise serializers.ValidationError(
                ("The posture is fixed at creation and cannot be changed."), code="immutable"
            )
        return value


class MemberSerializer(ModelSerializer):
    user_id = serializers.UUIDField(read_only=True)
    email = serializers.EmailField(source="user.email", max_length=254, trim_whitespace=False)
    role = serializers.ChoiceField(list(Role))

    descriptions = {
        "user_id": "The person's id.",
        "email": "The person's e-mail address. In responses, empty if it is unknown.",
        "role": "The person's role. `org_admin` can only be granted in an organization, not in a project.",
        "project_id": "The id of the project in which the role applies. Null if it applies to the whole organization.",
    }

    class Meta:
        model = Membership
        fields = ["id", "user_id", "email", "role", "project_id", "created_at", "updated_at"]

    def validate_email(self, value: str) -> str:
        """Reject a change of the address, because an update can only change the role."""
        if isinstance(self.instance, Membership) and value != self.instance.user.email:
            raise serializers.ValidationError("A member's e-mail address cannot be changed.", code="immutable")
        return value


class InvitedMemberSerializer(MemberSerializer):
    """A member who has just been invited."""

    invitation_url = serializers.URLField(read_only=True, allow_null=True)

    descriptions = {
        **MemberSerializer.descriptions,
        "invitation_url": "A link with which the person signs in. It works once, within 7 days, and is returned only "
        "in this response. Null if a mail server is configured, if the caller is not an `org_admin` of the "
        "organization, or if no link may be created for the person's account, for example because the person has "
        "already signed in with a confirmed address or has a role in another organization.",
    }

    class Meta(MemberSerializer.Meta):
        fields = [*MemberSerializer.Meta.fields, "invitation_url"]
