"""The signing keys of organizations."""

from __future__ import annotations

from typing import Any

from apps.tenancy.api import commands as c
from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.api.serializers.signing_keys import SigningKeySerializer
from apps.tenancy.models import SigningKey
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.mixins import ListModelMixin
from byteor_cloud.api.operations import Operation, Tag


class SigningKeyViewSet(ListModelMixin, OrganizationViewSet):
    """The organization's signing keys. Private keys are never returned."""

    tag = Tag.SIGNING_KEYS
    queryset = SigningKey.objects.all()
    serializer_class = SigningKeySerializer
    operations = {
        "list": Operation(
            "listSigningKeys",
            P.VIEW_ORG,
            "List signing keys",
            "Returns the organization's signing keys with their validity periods. Private keys are never returned, and "
            "are destroyed when a key is retired.",
        ),
    }
    commands = (c.rotate, c.retire)

    lookup_url_kwarg = "kid"

    def object_lookup(self) -> dict[str, Any]:
        return {"kid": self.kwargs["kid"]}
