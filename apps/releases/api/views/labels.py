"""Label changes of many agents. They are in this app, not in fleet, because they cause offers of deployments."""

from __future__ import annotations

from apps.fleet.models import Agent
from apps.releases.api import commands as c
from apps.releases.api.serializers.labels import RelabeledSerializer
from apps.tenancy.api.base import EnvironmentViewSet
from byteor_cloud.api.operations import Tag


class LabelViewSet(EnvironmentViewSet):
    """The labels of many agents."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = RelabeledSerializer
    commands = (c.change,)
