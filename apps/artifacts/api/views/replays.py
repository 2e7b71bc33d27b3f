"""Replays, their comparison, and traces of records."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from apps.artifacts.api import commands as c
from apps.artifacts.api.serializers.replays import ComparisonSerializer, ReplaySerializer, TraceSerializer
from apps.artifacts.api.views.captures import MAX_POSITION, MAX_SEQUENCE
from apps.artifacts.models import Replay
from apps.artifacts.services import captures
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ReplayStatus
from byteor_cloud.api.compute_slot import compute_slot
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, id_parameter, integer_parameter, line_parameter
from byteor_cloud.computing.computations import compare_body
from byteor_cloud.errors import Conflict, NotFound, Unavailable


class ReplayViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """Replays of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Replay.objects.all()
    serializer_class = ReplaySerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(ReplayStatus, "status"),
        "mode": choice_parameter(Replay.Mode.values, "mode"),
        "artifact_id": id_parameter("artifact_id"),
        "version_id": id_parameter("version_id"),
    }
    operations = {
        "list": Operation(
            "listReplays", P.VIEW_ENVIRONMENT, "List replays", "Returns the environment's replays, newest first."
        ),
        "retrieve": Operation(
            "getReplay", P.VIEW_ENVIRONMENT, "Get a replay", "Returns the replay with its result, once it has ended."
        ),
    }
    commands = (c.cancel,)

    @Operation(
        "compareReplays",
        P.OPERATE_ENVIRONMENT,
        parameters={"with": id_parameter(required=True, description="The replay to compare with.")},
        responses=ComparisonSerializer,
        errors=(Conflict,),
    )
    def compare(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compare two replays.

        Says where the results of two replays of the same records differ. In each pair the replay of the URL is first
        and the one in `with` second. A response of more than 4 MiB leaves out parts that are equal.
        """
        other = self.get_queryset().filter(pk=self.parameter_values["with"]).first()
        if other is None:
            raise NotFound("There is no replay to compare with.")
        body = captures.compare_replays(self.get_object(), other, compare_body, compute=self.compute)
        return HttpResponse(body, content_type="application/json")

    @Operation(
        "traceRecord",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "sequence": integer_parameter(0, MAX_SEQUENCE, required=True, description="The sequence of the record."),
            "ingress": line_parameter(description="The ingress of the record. Default: all that are replayed."),
            "after": integer_parameter(0, MAX_POSITION, description="Begin after the step with this number."),
        },
        responses=TraceSerializer,
        errors=(Conflict, Unavailable),
    )
    def trace(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Trace a record of a replay.

        Says what a record became at each stage and lane, why it was dropped, and which side effects it reached. Returns
        at most 4 MiB; `after` continues the trace. The trace is recomputed for each request, and 503 is returned if
        that takes longer than 10 s.
        """
        slot = partial(compute_slot, request._request)
        body = captures.trace_record(self.get_object(), **self.parameter_values, slot=slot)
        return HttpResponse(body, content_type="application/json")
