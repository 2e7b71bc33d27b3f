"""Enrollment tokens."""

from __future__ import annotations

from typing import Any

from apps.fleet.api import serializers as s
from apps.fleet.models import EnrollmentToken
from apps.fleet.services.enrollment import create_enrollment_token
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import tokens
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin
from byteor_cloud.api.operations import Operation, Tag


class EnrollmentTokenViewSet(ListModelMixin, CreateMixin, DestroyMixin, EnvironmentViewSet):
    """The enrollment tokens of an environment."""

    tag = Tag.AGENTS
    queryset = EnrollmentToken.objects.all()
    serializer_class = s.EnrollmentTokenSerializer
    filters = BY_CREATION
    operations = {
        "list": Operation(
            "listEnrollmentTokens",
            P.MANAGE_ENVIRONMENT,
            "List enrollment tokens",
            "Returns the environment's enrollment tokens, newest first, including used, revoked and expired "
            "tokens. A token is deleted 90 days after it expires or is revoked. The secrets are not included.",
        ),
        "create": Operation(
            "createEnrollmentToken",
            P.MANAGE_ENVIRONMENT,
            "Create an enrollment token",
            "Creates a token with which hosts enroll in this environment. Only this response contains the secret "
            "(`token`).",
            example={"max_uses": 10},
            holds_secret=True,
        ),
        "destroy": Operation(
            "revokeEnrollmentToken",
            P.MANAGE_ENVIRONMENT,
            "Revoke an enrollment token",
            "Revokes the token, so that no further agents can enroll with it. Agents that are already enrolled are not "
            "affected.",
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Created:
        token, secret = create_enrollment_token(environment=self.environment, actor=self.actor, **data)
        return Created(token, {"token": secret})

    def perform_destroy(self, row: EnrollmentToken) -> None:
        tokens.revoke(row, action="enrollment_token.revoke", actor=self.actor, scope=self.environment)
