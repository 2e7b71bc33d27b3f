"""Views that list, retrieve and compare replays, and trace their records."""

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
    """The replays of an environment."""

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
            "listReplays", P.VIEW_ENVIRONMENT, "List replays", "Returns the replays of the environment, newest first."
        ),
        "retrieve": Operation(
            "getReplay",
            P.VIEW_ENVIRONMENT,
            "Get a replay",
            "Returns the replay, with its result after it has finished.",
        ),
    }
    commands = (c.cancel,)

    @Operation(
        "compareReplays",
        P.OPERATE_ENVIRONMENT,
        parameters={"with": id_parameter(required=True, description="The id of the replay to compare with.")},
        responses=ComparisonSerializer,
        errors=(Conflict,),
    )
    def compare(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compare two replays.

        Returns the differences between the results of two replays of the same records. In each pair of values, the
        first belongs to the replay in the URL and the second to the replay in `with`. To keep the response below 4 MiB,
        egresses and stages may be left out. Those that are equal in both replays are left out first.
        """
        other = self.get_queryset().filter(pk=self.parameter_values["with"]).first()
        if other is None:
            raise NotFound("The replay in `with` does not exist in this environment.")
        body = captures.compare_replays(self.get_object(), other, compare_body, compute=self.compute)
        return HttpResponse(body, content_type="application/json")

    @Operation(
        "traceRecord",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "sequence": integer_parameter(
                0, MAX_SEQUENCE, required=True, description="The sequence number of the record."
            ),
            "ingress": line_parameter(
                description="The ingress of the record. By default, records of all replayed ingresses are traced."
            ),
            "after": integer_parameter(0, MAX_POSITION, description="Start after the step with this number."),
        },
        responses=TraceSerializer,
        errors=(Conflict, Unavailable),
    )
    def trace(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Trace a record of a replay.

        Returns the content of the record after each stage and lane, and its side effects. If the record was dropped,
        the trace contains the reason. A page is limited to 4 MiB; use `after` to get the next page. Each request
        recomputes the trace. If this takes longer than 10 seconds, the request fails with 503.
        """
        slot = partial(compute_slot, request._request)
        body = captures.trace_record(self.get_object(), **self.parameter_values, slot=slot)
        return HttpResponse(body, content_type="application/json")
