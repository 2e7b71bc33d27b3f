"""The matrix of a project."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.releases.api.serializers.matrix import MatrixSerializer
from apps.releases.models import Deployment
from apps.releases.services.matrix import MAX_CELLS, read_matrix
from apps.tenancy.api.base import ProjectViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.etags import body_digest
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import line_parameter


class MatrixViewSet(ProjectViewSet):
    """The matrix: what runs in each environment of a project, by pipeline."""

    tag = Tag.PROJECTS
    queryset = Deployment.objects.none()
    serializer_class = MatrixSerializer

    @Operation(
        "getMatrix",
        P.VIEW_PROJECT,
        parameters={
            "after": line_parameter(
                max_length=63,
                description="Returns only pipelines whose names follow this name. Send `next_after` of the previous "
                "response.",
            )
        },
        responses=MatrixSerializer,
    )
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the matrix of a project.

        Returns, for each pipeline and each environment of the project, what runs, on how many agents, whether it
        differs from what runs in the previous environment, and what is under way.
        """
        matrix = read_matrix(self.project, after=self.parameter_values.get("after", ""), max_cells=MAX_CELLS)
        data = self.get_serializer(matrix).data
        return Response(data, headers={"ETag": f'"{body_digest(data)}"'})
