"""Views that list and retrieve bisects."""

from __future__ import annotations

from apps.artifacts.api.serializers.bisects import BisectSerializer
from apps.artifacts.models import Bisect
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import BisectStatus
from byteor.engine.replay import BisectOutcome
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, id_parameter


class BisectViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """The bisects of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Bisect.objects.all()
    serializer_class = BisectSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(BisectStatus, "status"),
        "outcome": choice_parameter(BisectOutcome, "outcome"),
        "artifact_id": id_parameter("artifact_id"),
    }
    operations = {
        "list": Operation(
            "listBisects", P.VIEW_ENVIRONMENT, "List bisects", "Returns the bisects of the environment, newest first."
        ),
        "retrieve": Operation(
            "getBisect",
            P.VIEW_ENVIRONMENT,
            "Get a bisect",
            "Returns the bisect with the verdicts so far, and with its outcome after it has finished.",
        ),
    }
