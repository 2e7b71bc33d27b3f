"""Views that request, list and retrieve regressions."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api import commands as c
from apps.artifacts.api.serializers.regressions import RegressionSerializer, RequestRegressionSerializer
from apps.artifacts.services import regression_details
from apps.releases.models import Regression
from apps.releases.services import regressions
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import RegressionStatus
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import ID, Operation, Tag
from byteor_cloud.api.parameters import (
    choice_parameter,
    id_parameter,
    integer_parameter,
    line_parameter,
    pattern_parameter,
)
from byteor_cloud.computing.computations import CompiledVersion, compile_version
from byteor_cloud.errors import Conflict, Unprocessable

MAX_RESULTS = 1_000_000


class RegressionViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """The regressions of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Regression.objects.all()
    serializer_class = RegressionSerializer
    compiled: CompiledVersion | None = None
    filters = {
        **BY_CREATION,
        "status": choice_parameter(RegressionStatus, "status"),
        "pipeline": line_parameter("pipeline", max_length=63),
        "config_bundle_id": id_parameter("config_bundle_id"),
        "version_id": id_parameter("version_id"),
    }
    operations = {
        "list": Operation(
            "listRegressions",
            P.VIEW_ENVIRONMENT,
            "List regressions",
            "Returns the regressions of the environment, newest first, without their results and groups.",
        ),
        "retrieve": Operation(
            "getRegression",
            P.VIEW_ENVIRONMENT,
            "Get a regression",
            "Returns the regression with its results so far. After it has finished, the groups of differences are "
            "included. A response is limited to 4 MiB (see `truncated`). Callers without the permission "
            "`environment:operate` get the examples without payloads.",
            parameters={
                "group": pattern_parameter(
                    r"^[0-9a-f]{64}$",
                    "Must be the id of a group.",
                    description="Returns only this group of differences, and only the results that show it.",
                ),
                "after": integer_parameter(
                    0,
                    MAX_RESULTS,
                    description="Skips this number of results and returns the following ones, without groups.",
                ),
            },
        ),
    }
    commands = (c.cancel_regression, c.accept)

    def prepare(self, request: Request) -> None:
        """Compile the draft to test, if the request names one."""
        if self.action == "create" and not self.is_repeated:
            draft = self.validated(request).get("draft")
            self.compiled = None if draft is None else self.compute(compile_version, draft.plan)

    @Operation(
        "requestRegression",
        P.OPERATE_ENVIRONMENT,
        body=RequestRegressionSerializer,
        responses={202: RegressionSerializer},
        errors=(Conflict, Unprocessable),
        example={"config_bundle_id": ID},
    )
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Test a candidate.

        Replays the fixtures of a pipeline through a candidate and through the configurations in `against`, and compares
        the results. For a fixture with a golden result, the candidate's result is compared with the expected results
        instead. The candidate is a config bundle, a version or a draft: the body names exactly one. Verdicts that are
        known are not computed again. The regression runs in the background: its `finished_at` is null until it has
        finished. Returns 422 if the draft does not compile.
        """
        row = regressions.request(
            environment=self.environment, actor=self.actor, compiled=self.compiled, **self.validated(request)
        )
        response = self.represent(row, status=202)
        response["Location"] = f"{request.path}/{row.pk}"
        return response

    def represent(self, row: Model, *, status: int = 200, **extra: Any) -> Response:
        """Return a response with the regression, its results and its groups."""
        assert isinstance(row, Regression)  # noqa: S101  the view's rows
        details = regression_details.read_details(
            row,
            with_payloads=P.OPERATE_ENVIRONMENT in self.granted_permissions,
            group=self.parameter_values.get("group"),
            after=self.parameter_values.get("after"),
        )
        shown = {
            "results": details.results,
            "groups": details.groups,
            "truncated": details.is_truncated,
            "next_after": details.next_after,
        }
        return super().represent(row, status=status, **shown, **extra)
