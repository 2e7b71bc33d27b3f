"""The caller, and the caller's own user tokens."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.api.base import SIGNED_IN, ApiViewSet
from apps.tenancy.api.serializers.credentials import MeSerializer, UserTokenSerializer
from apps.tenancy.credentials import Family
from apps.tenancy.models import Membership, UserToken
from apps.tenancy.services import tokens
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin
from byteor_cloud.api.operations import Operation, Tag


class MeViewSet(ApiViewSet):
    """The caller and the credential of the request."""

    tag = Tag.AUTHENTICATION
    serializer_class = MeSerializer
    queryset = UserToken.objects.none()

    @Operation("getCaller", SIGNED_IN)
    def retrieve(self, request: Request) -> Response:
        """Get the caller.

        Returns the person to whom the credential belongs (null for an organization API key), the credential without its
        secret, and the roles of the credential. Use this operation to test a user token or an organization API key.
        """
        principal = self.principal
        if principal.user is not None:
            roles: list[Any] = list(Membership.objects.live().filter(user=principal.user).order_by("id"))
        else:
            roles = [principal.credential]
        body = {
            "user": principal.user,
            "credential": {
                "family": principal.family,
                "id": principal.credential.pk,
                "prefix": principal.credential.prefix,
                "expires_at": principal.credential.expires_at,
            },
            "roles": roles,
        }
        return Response(MeSerializer(body).data)


class TokenViewSet(ListModelMixin, CreateMixin, DestroyMixin, ApiViewSet):
    """The caller's own user tokens."""

    tag = Tag.AUTHENTICATION
    queryset = UserToken.objects.all()
    serializer_class = UserTokenSerializer
    filters = BY_NAME
    credentials = (Family.USER,)
    operations = {
        "list": Operation(
            "listUserTokens",
            SIGNED_IN,
            "List your user tokens",
            "Returns the caller's own user tokens, newest first, including tokens that expired or were revoked in the "
            "last 90 days. Secrets are never returned again.",
        ),
        "create": Operation(
            "createUserToken",
            SIGNED_IN,
            "Create a user token",
            "Creates a token with all of the caller's roles. Only this response contains the secret (`token`).",
            example={"name": "laptop"},
            holds_secret=True,
        ),
        "destroy": Operation(
            "revokeUserToken", SIGNED_IN, "Revoke a user token", "Revokes the token. It is rejected within one second."
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(user=self.principal.user)

    def perform_create(self, data: dict[str, Any]) -> Created:
        assert self.principal.user is not None  # noqa: S101  for mypy: ``credentials`` accepts only user tokens
        token, secret = tokens.create_user_token(user=self.principal.user, actor=self.actor, **data)
        return Created(token, {"token": secret})

    def perform_destroy(self, row: UserToken) -> None:
        tokens.revoke(row, action="token.revoke", actor=self.actor, scope=None)
