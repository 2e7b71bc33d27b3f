"""What agents ran and run, with the approvals behind it. It is here and not in fleet, because it names deployments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.models import Agent, RunningInterval
from apps.fleet.services import history
from apps.releases.services import provenance
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.mixins import ListModelMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import time_parameter
from byteor_cloud.errors import InvalidInput, NotFound


class RunningIntervalSerializer(serializers.Serializer[Any]):
    """A time in which an agent ran one bundle."""

    agent_id = serializers.UUIDField()
    agent_name = serializers.CharField(source="agent.name")
    to = serializers.DateTimeField(source="ended_at", allow_null=True)
    confirmed_until = serializers.DateTimeField(source="confirmed")
    deployment_id = serializers.UUIDField(source="origin.deployment_id", allow_null=True)
    bundle_hash = serializers.CharField()
    spec_hash = serializers.CharField()
    version_id = serializers.UUIDField(source="origin.version_id", allow_null=True)
    config_bundle_id = serializers.UUIDField(source="origin.config_bundle_id", allow_null=True)
    approval_id = serializers.UUIDField(source="origin.approval_id", allow_null=True)
    approved_by = serializers.ListField(source="origin.approved_by", child=serializers.CharField())

    descriptions = {
        "agent_name": "The agent's present name.",
        "from": "When a heartbeat first said so.",
        "to": "When a heartbeat said something else. Null while none did, also after the agent was decommissioned.",
        "confirmed_until": "When a heartbeat last said so.",
        "deployment_id": "The deployment that built the bundle. If this environment has none, the one that the agent "
        "named. Null if this environment does not have that one either.",
        "bundle_hash": "The SHA-256 of the deploy bundle.",
        "spec_hash": "The spec hash that the agent reported.",
        "version_id": "The version of the deployment.",
        "config_bundle_id": "The config bundle of the deployment.",
        "approval_id": "The approval that permitted the deployment. Null if it needed none.",
        "approved_by": "The e-mail addresses of the people who approved.",
    }

    def get_fields(self) -> dict[str, Any]:
        """Return the fields with ``from``, which Python does not accept as the name of an attribute."""
        fields: dict[str, Any] = super().get_fields()
        first = {name: fields.pop(name) for name in ("agent_id", "agent_name")}
        return {**first, "from": serializers.DateTimeField(source="started_at"), **fields}


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


class VersionCountSerializer(serializers.Serializer[Any]):
    version_id = serializers.UUIDField(allow_null=True)
    number = serializers.IntegerField(allow_null=True)
    pipeline = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    descriptions = {
        "version_id": "The version. Null for bundles that were not built in this environment.",
        "number": "The number of the version.",
        "pipeline": "The pipeline of the version.",
        "count": "How many agents run it.",
    }


class AgentSummarySerializer(serializers.Serializer[Any]):
    """How many agents the environment has, in all and by what lists filter by."""

    total = serializers.IntegerField(source="counts.total")
    liveness = serializers.DictField(source="counts.liveness", child=serializers.IntegerField())
    drifted = serializers.IntegerField(source="counts.drifted")
    cloned = serializers.IntegerField(source="counts.cloned")
    status = serializers.DictField(source="counts.status", child=serializers.IntegerField())
    versions = VersionCountSerializer(many=True)
    labels = serializers.DictField(
        source="counts.labels", child=serializers.DictField(child=serializers.IntegerField())
    )
    descriptions = {
        "total": "All enrolled agents.",
        "liveness": "The number of agents by liveness.",
        "drifted": "The number of agents that run something else than they should.",
        "cloned": "The number of agents that are suspected to be clones.",
        "status": "The number of agents by the status in their last heartbeat. Those that sent none are not counted.",
        "versions": "The number of agents by running version, the most frequent first: at most 50. Agents that run "
        "nothing are not counted.",
        "labels": "The number of agents by label key and value, the most frequent first: at most 50 values of a key, "
        "and at most 200 keys.",
    }


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
