"""API views of drafts, versions and the plan schema."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.pipelines.api import operations
from apps.pipelines.api import serializers as s
from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts, versions
from apps.tenancy.api.base import SIGNED_IN, ApiViewSet, EnvironmentViewSet, body_digest
from apps.tenancy.api.mixins import (
    Created,
    CreateMixin,
    DestroyMixin,
    ListModelMixin,
    RetrieveMixin,
    UpdateMixin,
)
from apps.tenancy.permissions import Permission as P
from byteor.engine.canonical import sha256
from byteor.engine.compiler import plan_schema
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.parameters import choice_parameter, id_parameter, sha256_parameter
from byteor_cloud.computing.computations import CompiledDraft, compile_draft, diff_versions, preview
from byteor_cloud.errors import Conflict, NotFound, PreconditionFailed, QuotaExceeded, Unprocessable

TARGETS = ["single_ring", "lane_graph"]
AGAINST = {"against": id_parameter(required=True, description="The version to compare with.")}


class _DiffMixin(EnvironmentViewSet):
    """Adds the query parameter ``against``, the version to compare with."""

    undigested_fields = frozenset({"plan", "spec", "spec_kv"})

    def against(self) -> Version:
        """Return the version that ``against`` names. Raises NotFound."""
        version = Version.objects.filter(environment=self.environment, pk=self.parameter_values["against"]).first()
        if version is None:
            raise NotFound("There is no such version in this environment.")
        return version


class DraftViewSet(_DiffMixin, ListModelMixin, CreateMixin, RetrieveMixin, UpdateMixin, DestroyMixin):
    """Drafts of an environment."""

    operations = operations.DRAFT
    queryset = Draft.objects.all()
    serializer_class = s.DraftSerializer
    filters = BY_NAME
    draft: Draft
    compiled: CompiledDraft | None = None
    promotable: versions.Promotable | None = None
    parameters = {
        "diff": AGAINST,
        "preview": {
            "target": choice_parameter(TARGETS, description="Compile for this target instead of the plan's own.")
        },
    }
    errors = {
        "create": (QuotaExceeded,),
        "destroy": (PreconditionFailed,),
        "diff": (Unprocessable,),
        "version": (Conflict, PreconditionFailed, Unprocessable),
    }
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "create": P.OPERATE_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        "update": P.OPERATE_ENVIRONMENT,
        "destroy": P.OPERATE_ENVIRONMENT,
        "diff": P.VIEW_ENVIRONMENT,
        "preview": P.OPERATE_ENVIRONMENT,
        "version": P.OPERATE_ENVIRONMENT,
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.select_related("environment__project__organization")

    def prepare(self, request: Request) -> None:
        """Compile the plan that will be saved or promoted."""
        if self.action == "version":
            self.draft = self.get_object()
            self.promotable = versions.prepare_promotion(self.draft, compute=self.compute)
        elif self.action in {"create", "update"} and isinstance(request.data, dict):
            plan = request.data.get("plan")
            self.compiled = self.compute(compile_draft, plan) if isinstance(plan, dict) else None

    def perform_create(self, data: dict[str, Any]) -> Model:
        return drafts.create_draft(environment=self.environment, actor=self.actor, compiled=self.compiled, **data)

    def perform_update(self, row: Draft, data: dict[str, Any]) -> Model:
        return drafts.update_draft(
            row, data, actor=self.actor, expected_revision=self.expected_revision, compiled=self.compiled
        )

    def perform_destroy(self, row: Draft) -> None:
        drafts.delete_draft(row, actor=self.actor, expected_revision=self.expected_revision)

    @extend_schema(
        request=s.PreviewDraftSerializer,
        responses=s.PreviewSerializer,
    )
    def preview(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compile a plan without storing anything. A plan that does not compile is not an error: it returns 200."""
        draft = self.get_object()
        body = s.PreviewDraftSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        plan = body.validated_data.get("plan", draft.plan)
        compiled = self.compute(preview, plan, self.parameter_values.get("target"))
        return HttpResponse(compiled, content_type="application/json")

    @extend_schema(request=s.PromoteSerializer, responses={201: s.VersionSerializer, 200: s.VersionSerializer})
    def version(self, request: Request, **kwargs: Any) -> Response:
        """Promote the saved plan to an immutable version. Returns 200 and the existing version if nothing changed."""
        body = s.PromoteSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        expected = body.validated_data.get("expected_revision", self.expected_revision)
        version, is_new = versions.promote(
            self.draft, expected_revision=expected, actor=self.actor, prepared=self.promotable
        )
        response = Response(s.VersionSerializer(version).data, status=201 if is_new else 200)
        response["Location"] = request.path.rsplit("/drafts/", 1)[0] + f"/versions/{version.pk}"
        return response

    @extend_schema(
        responses={200: s.DiffSerializer, 422: OpenApiResponse(description="The draft does not compile.")},
    )
    def diff(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Return the changes from a version to the saved plan."""
        draft, against = self.get_object(), self.against()
        body = drafts.diff_draft(draft, against=against, compute=self.compute)
        return HttpResponse(body, content_type="application/json")


class VersionViewSet(_DiffMixin, ListModelMixin, CreateMixin, RetrieveMixin):
    """Versions of an environment. POST copies a version from another environment of the project."""

    operations = operations.VERSION
    queryset = Version.objects.all()
    serializer_class = s.VersionSerializer
    filters = {**BY_NAME, "spec_hash": sha256_parameter("spec_hash"), "draft_id": id_parameter("draft_id")}
    parameters = {"diff": AGAINST}
    errors = {"graph": (Conflict,)}
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "create": P.OPERATE_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        "spec_kv": P.VIEW_ENVIRONMENT,
        "diff": P.VIEW_ENVIRONMENT,
        "graph": P.VIEW_ENVIRONMENT,
    }

    @extend_schema(request=s.CopyVersionSerializer, responses={201: s.VersionSerializer, 200: s.VersionSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Copy a version from another environment of the project."""
        return super().create(request, *args, **kwargs)

    def validated(self, request: Request, *, partial: bool = False, row: Model | None = None) -> dict[str, Any]:
        body = s.CopyVersionSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return dict(body.validated_data)

    def perform_create(self, data: dict[str, Any]) -> Created:
        version, is_new = versions.copy_version(environment=self.environment, actor=self.actor, **data)
        return Created(version, is_new=is_new)

    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    def spec_kv(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Return the canonical KV text of the spec, of which the spec hash is the SHA-256."""
        version = self.get_object()
        response = HttpResponse(version.spec_kv, content_type="text/plain; charset=us-ascii")
        response["ETag"] = f'"{version.spec_hash}"'
        return response

    @extend_schema(responses=s.DiffSerializer)
    def diff(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Return the changes from another version to this one."""
        version, against = self.get_object(), self.against()
        body = self.compute(diff_versions, str(against.pk), against.spec_kv, version.spec_kv)
        return HttpResponse(body, content_type="application/json")

    @extend_schema(responses={(200, "image/svg+xml"): OpenApiTypes.STR})
    def graph(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Return the version's graph as SVG."""
        drawing = versions.draw(self.get_object(), compute=self.compute).encode()
        response = HttpResponse(drawing, content_type="image/svg+xml")
        response["ETag"] = f'"{sha256(drawing)}"'
        return response


class PlanSchemaViewSet(ApiViewSet):
    """The JSON Schema of a plan. It is the same for every caller."""

    operations = operations.PLAN_SCHEMA
    permissions = {"retrieve": SIGNED_IN}
    queryset = Draft.objects.none()

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def retrieve(self, request: Request) -> Response:
        """Return the JSON Schema (2020-12) of a plan, for editors."""
        schema = plan_schema()
        headers = {"ETag": f'"{body_digest(schema)}"', "Cache-Control": "private, max-age=3600"}
        return Response(schema, headers=headers)
