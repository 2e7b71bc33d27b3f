"""The history of agents. It is in this app, not in fleet, because it refers to deployments and approvals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.models import Agent, RunningInterval
from apps.fleet.services import history
from apps.releases.api.serializers.history import AgentSummarySerializer, RunningIntervalSerializer
from apps.releases.services import provenance
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.mixins import ListModelMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import time_parameter
from byteor_cloud.errors import InvalidInput, NotFound


class _IntervalViewSet(ListModelMixin, EnvironmentViewSet):
    """Base of the lists of intervals."""

    serializer_class = RunningIntervalSerializer

    def with_origins(self, intervals: Collection[Any]) -> Any:
        """Return the intervals as JSON, with their deployments and approvals."""
        origins = provenance.find_origins(self.environment, intervals)
        for interval in intervals:
            interval.origin = origins[interval.pk]
        return self.get_serializer(intervals, many=True).data


class HistoryViewSet(_IntervalViewSet):
    """The intervals of one agent, newest first. The agent may be decommissioned."""

    tag = Tag.AGENTS
    queryset = RunningInterval.objects.all()
    filters = {
        "since": time_parameter(
            condition=lambda since: Q(ended_at=None) | Q(ended_at__gt=since),
            description="Returns only intervals that ended after this time or have not ended.",
        ),
        "until": time_parameter("started_at__lt", description="Returns only intervals that started before this time."),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        agent = Agent.objects.filter(pk=self.kwargs["id"], environment=self.environment)
        if not agent.exists():
            raise NotFound("This environment has no such agent.")
        return history.intervals().filter(agent=self.kwargs["id"])

    @Operation("listAgentHistory", P.VIEW_ENVIRONMENT)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what an agent has run.

        Returns the intervals in which the agent ran one bundle, newest first, with the deployment and the approval of
        each. The agent may be decommissioned. A new interval starts when a heartbeat reports another bundle, deployment
        or spec hash. If the agent already has 1,000 intervals within a day, the last one is overwritten instead.
        Intervals are deleted 365 days after they end.
        """
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.with_origins(page or ()))


class FleetStateViewSet(_IntervalViewSet):
    """What each agent of the environment ran at a given time. The newest agents come first."""

    tag = Tag.AGENTS
    queryset = Agent.objects.all()
    filters = {"at": time_parameter(description="The time, not in the future. Defaults to the current time.")}

    @Operation("listFleetState", P.VIEW_ENVIRONMENT)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what the fleet ran at a given time.

        Returns the bundle that each agent of the environment ran at the time `at`, with the bundle's deployment and
        approval. Decommissioned agents are included until they are deleted. For an agent that was offline or
        decommissioned at that time, returns the last bundle that the agent had reported. Agents that ran nothing are
        left out. Intervals are deleted 365 days after they end, so the list may be incomplete for an earlier time.
        """
        now = timezone.now()
        at = self.parameter_values.get("at", now)
        if at > now:
            detail = "The time is in the future. Leave the parameter out to use the current time."
            raise InvalidInput.at_parameter("at", detail, code="max_value")
        then = history.running_at(at)
        agents = self.get_queryset().filter(Exists(then.filter(agent=OuterRef("pk"))), created_at__lte=at).only("pk")
        page = self.paginate_queryset(agents) or []
        # An agent that was deleted after the query above is missing.
        intervals = list(then.filter(agent__in=[agent.pk for agent in page]).order_by("-agent_id"))
        return self.get_paginated_response(self.with_origins(intervals))


class AgentSummaryViewSet(EnvironmentViewSet):
    """The agent counts of an environment."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = AgentSummarySerializer

    @Operation("getAgentSummary", P.VIEW_ENVIRONMENT, responses=AgentSummarySerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get a summary of the agents.

        Returns the number of agents in the environment, in total and by liveness, drift, suspected clone, status,
        version and label.
        """
        return Response(self.get_serializer(provenance.summarize(self.environment)).data)
