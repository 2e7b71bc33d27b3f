"""What agents ran and run, with the approvals behind it. It is here and not in fleet, because it names deployments."""

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
        """Return the JSON of the intervals, with the deployments and approvals behind them."""
        origins = provenance.find_origins(self.environment, intervals)
        for interval in intervals:
            interval.origin = origins[interval.pk]
        return self.get_serializer(intervals, many=True).data


class HistoryViewSet(_IntervalViewSet):
    """The intervals of one agent, also of a decommissioned one, newest first."""

    tag = Tag.AGENTS
    queryset = RunningInterval.objects.all()
    filters = {
        "since": time_parameter(
            condition=lambda since: Q(ended_at=None) | Q(ended_at__gt=since),
            description="Only intervals that had not ended at this time.",
        ),
        "until": time_parameter("started_at__lt", description="Only intervals that began before this time."),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        agent = Agent.objects.filter(pk=self.kwargs["id"], environment=self.environment)
        if not agent.exists():
            raise NotFound("This environment has no such agent.")
        return history.intervals().filter(agent=self.kwargs["id"])

    @Operation("listAgentHistory", P.VIEW_ENVIRONMENT)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what an agent ran.

        Returns the times in which the agent ran each bundle, newest first, with the deployment and the approval behind
        it. Works for an agent that left the fleet, too. Times in which it ran nothing are left out. A new entry is made
        when a heartbeat names another bundle: at most 1,000 a day. Entries are kept for a year.
        """
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.with_origins(page or ()))


class FleetStateViewSet(_IntervalViewSet):
    """What each agent of the environment ran at one moment. It is paged by agent, newest first."""

    tag = Tag.AGENTS
    queryset = Agent.objects.all()
    filters = {"at": time_parameter(description="The moment. Default: now.")}

    @Operation("listFleetState", P.VIEW_ENVIRONMENT)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what the fleet ran at a time.

        Returns what each agent of the environment ran at one moment, with the deployment and the approval behind it.
        Agents that left the fleet since are included, agents that ran nothing are not. `confirmed_until` says how long
        heartbeats confirmed it.
        """
        now = timezone.now()
        at = self.parameter_values.get("at", now)
        if at > now:
            raise InvalidInput.at_parameter("at", "The time is in the future. Leave it out for now.", code="max_value")
        then = history.running_at(at)
        agents = self.get_queryset().filter(Exists(then.filter(agent=OuterRef("pk"))), created_at__lte=at).only("pk")
        page = self.paginate_queryset(agents) or []
        # An agent that is deleted meanwhile is missing.
        intervals = list(then.filter(agent__in=[agent.pk for agent in page]).order_by("-agent_id"))
        return self.get_paginated_response(self.with_origins(intervals))


class AgentSummaryViewSet(EnvironmentViewSet):
    """Counts of the environment's agents."""

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = AgentSummarySerializer

    @Operation("getAgentSummary", P.VIEW_ENVIRONMENT, responses=AgentSummarySerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get a summary of the agents.

        Returns how many agents the environment has, in all and by liveness, drift, status, running version and label.
        """
        return Response(self.get_serializer(provenance.summarize(self.environment)).data)
