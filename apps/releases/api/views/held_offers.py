"""The offers of an environment that are held after a restore."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.models import Agent
from apps.releases.api import commands as c
from apps.releases.api.serializers.held_offers import HeldOffersSerializer
from apps.releases.services.restored import read_held
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.operations import Operation, Tag


class HeldOffersViewSet(EnvironmentViewSet):
    """The held offers of an environment. An agent does not get a held offer until it is resumed."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = HeldOffersSerializer
    commands = (c.resume_offers,)

    @Operation("getHeldOffers", P.VIEW_ENVIRONMENT, responses=HeldOffersSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the held offers of an environment.

        Returns how many agents have an offer that has been held since the installation was restored from a backup.
        Agents with a held offer keep running what they run. An offer is held until the offers of the environment
        or of the deployment are resumed, or until the offer is replaced or withdrawn.
        """
        return Response(self.get_serializer(read_held(self.environment)).data)
