"""The views of series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api.serializers import SeriesSerializer
from apps.fleet.models import Agent
from apps.fleet.services import series
from apps.fleet.services.series import Point
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.canonical import format_time
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import time_parameter
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.errors import InvalidInput, NotFound

_RANGE = {
    "since": time_parameter(
        description="The start of the time range, not in the future. The first point is the slot that contains this "
        "time, or the oldest kept slot if this time is earlier. Defaults to 24 hours before `until`."
    ),
    "until": time_parameter(
        description="The end of the time range, after `since` and not in the future. Slots that start at or after "
        "this time are left out. Defaults to the current time."
    ),
}


class _SeriesViewSet(EnvironmentViewSet):
    """Base of the views that return series."""

    tag = Tag.AGENTS
    queryset = Agent.objects.all()
    serializer_class = SeriesSerializer

    def time_range(self) -> tuple[datetime, datetime]:
        """Return the requested time range. Raises InvalidInput if it is empty or in the future."""
        now = timezone.now()
        given = self.parameter_values
        for name in ("since", "until"):
            if given.get(name, now) > now:
                detail = "The time is in the future."
                raise InvalidInput.at_parameter(name, detail, code="max_value")
        until = given.get("until", now)
        try:
            since = given.get("since") or until - timedelta(days=1)
        except OverflowError:  # ``until`` is on the first day of the year 1
            since = until
        if since >= until:
            raise InvalidInput.at_parameter("since", "The start must be before the end (`until`).", code="max_value")
        return since, until

    def respond(self, points: Sequence[Point]) -> Response:
        """Return the response with these points, without a serializer, which would take a second for 90 days."""
        rows = [{**asdict(point), "at": format_time(point.at)} for point in Pausing(points)]
        return Response({"step_s": series.SLOT_S, "points": rows})


class AgentSeriesViewSet(_SeriesViewSet):
    """The series of one agent. The agent may be decommissioned."""

    @Operation("getAgentSeries", P.VIEW_ENVIRONMENT, parameters=_RANGE, responses=SeriesSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the series of an agent.

        Returns what the agent's heartbeats reported in each slot of 15 minutes, oldest first. The current slot is
        included, up to the last heartbeat. Also works for a decommissioned agent. Slots older than 90 days are deleted.

        A counter's value is its increase in the slot. If a counter is lower than before, or the counters come from
        another process or deployment, all counters are assumed to have started again at 0. If the agent sends `boot_id`
        and `uptime_s`, heartbeats that arrive late or come from one of the three previous processes are recognized, and
        add nothing to the counters. Values are ignored if they are negative or too large: more than 1,000,000 for
        `cpu_percent`, or more than 2^53 - 1 for the others. Counters that are not integers are ignored as well.
        """
        since, until = self.time_range()
        agent = Agent.objects.filter(pk=self.kwargs["id"], environment=self.environment).only("pk").first()
        if agent is None:
            raise NotFound("This environment has no such agent.")
        return self.respond(series.read_agent(agent, since, until))


class EnvironmentSeriesViewSet(_SeriesViewSet):
    """The sums of the series of an environment's agents."""

    @Operation("getEnvironmentSeries", P.VIEW_ENVIRONMENT, parameters=_RANGE, responses=SeriesSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the series of an environment.

        Returns the sums of the series of all agents, including decommissioned agents, for each slot of 15 minutes,
        oldest first. Slots older than 90 days are deleted. In an environment with more than 1,000 of these agents, a
        slot is included only after five minutes have passed since its end, because its values must be summed first. In
        smaller environments, the current slot is included, up to the last heartbeats.
        """
        since, until = self.time_range()
        return self.respond(series.read_environments([self.environment], since, until))
