"""API views of drafts, versions and the plan schema."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from apps.pipelines.api import serializers as s
from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts, versions
from apps.tenancy.api.base import SIGNED_IN, ApiViewSet, EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.canonical import sha256
from byteor.engine.compiler import plan_schema
from byteor_cloud.api.etags import body_digest
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import ID, PLAN, Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, id_parameter, sha256_parameter
from byteor_cloud.computing.computations import CompiledDraft, compile_draft, diff_versions, preview
from byteor_cloud.errors import Conflict, NotFound, PreconditionFailed, QuotaExceeded, Unprocessable

TARGETS = ["single_ring", "lane_graph"]
AGAINST = {"against": id_parameter(required=True, description="The id of the version to compare with.")}


class _DiffMixin(EnvironmentViewSet):
    """Mixin for views with the query parameter ``against``, the version to compare with."""

    undigested_fields = frozenset({"plan", "spec", "spec_kv"})

    def against(self) -> Version:
        """Return the version in the parameter ``against``. Raises NotFound."""
        version = Version.objects.filter(environment=self.environment, pk=self.parameter_values["against"]).first()
        if version is None:
            raise NotFound("There is no such version in this environment.")
        return version


class DraftViewSet(_DiffMixin, ListModelMixin, CreateMixin, RetrieveMixin, UpdateMixin, DestroyMixin):
    """Drafts of an environment."""

    tag = Tag.PIPELINES
    queryset = Draft.objects.all()
    serializer_class = s.DraftSerializer
    filters = BY_NAME
    draft: Draft
    compiled: CompiledDraft | None = None
    promotable: versions.Promotable | None = None
    operations = {
        "list": Operation(
            "listDrafts", P.VIEW_ENVIRONMENT, "List drafts", "Returns the environment's pipeline drafts, newest first."
        ),
        "create": Operation(
            "createDraft",
            P.OPERATE_ENVIRONMENT,
            "Create a draft",
            "Saves a plan, even if it does not compile; `diagnostics` contains the compiler's findings. Fails with "
            "`quota.drafts` if the organization has reached its quota of drafts.",
            errors=(QuotaExceeded,),
            example={"name": "trades", "plan": PLAN},
        ),
        "retrieve": Operation(
            "getDraft", P.VIEW_ENVIRONMENT, "Get a draft", "Returns the draft with the diagnostics of its plan."
        ),
        "update": Operation(
            "updateDraft",
            P.OPERATE_ENVIRONMENT,
            "Update a draft",
            "Changes the fields in the body and keeps the others. Send the draft's `ETag` as `If-Match` to avoid "
            "overwriting a change by somebody else.",
            example={"name": "trades-eu"},
        ),
        "destroy": Operation(
            "deleteDraft",
            P.OPERATE_ENVIRONMENT,
            "Delete a draft",
            "Deletes the draft. Versions that were promoted from it are kept.",
            errors=(PreconditionFailed,),
        ),
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

    @Operation(
        "previewDraft",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "target": choice_parameter(TARGETS, description="The target to compile for, instead of the plan's target.")
        },
        body=s.PreviewDraftSerializer,
        responses=s.PreviewSerializer,
        example={"plan": PLAN},
        takes_idempotency_key=False,
    )
    def preview(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Preview a draft.

        Compiles the saved plan, or the plan in the body, and saves nothing. If the plan does not compile, returns 200
        with `ok: false` and the diagnostics.
        """
        draft = self.get_object()
        plan = self.validated(request).get("plan", draft.plan)
        compiled = self.compute(preview, plan, self.parameter_values.get("target"))
        return HttpResponse(compiled, content_type="application/json")

    @Operation(
        "promoteDraft",
        P.OPERATE_ENVIRONMENT,
        body=s.PromoteSerializer,
        responses={201: s.VersionSerializer, 200: s.VersionSerializer},
        errors=(Conflict, PreconditionFailed, Unprocessable),
        example={"expected_revision": 1},
    )
    def version(self, request: Request, **kwargs: Any) -> Response:
        """Promote a draft to a version.

        Compiles the saved plan to an immutable version with the next number of its pipeline. If the draft's last
        version has the same plan and compiler version, returns that version (200). Fails with 422 if the plan does not
        compile.
        """
        expected = self.validated(request).get("expected_revision", self.expected_revision)
        version, is_new = versions.promote(
            self.draft, expected_revision=expected, actor=self.actor, prepared=self.promotable
        )
        response = Response(s.VersionSerializer(version).data, status=201 if is_new else 200)
        response["Location"] = request.path.rsplit("/drafts/", 1)[0] + f"/versions/{version.pk}"
        return response

    @Operation(
        "diffDraft",
        P.VIEW_ENVIRONMENT,
        parameters=AGAINST,
        responses={200: s.DiffSerializer, 422: OpenApiResponse(description="The draft's plan does not compile.")},
        errors=(Unprocessable,),
    )
    def diff(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compare a draft with a version.

        Returns the changes from the version to the draft's saved plan. Fails with 422 if the plan does not compile.
        """
        draft, against = self.get_object(), self.against()
        body = drafts.diff_draft(draft, against=against, compute=self.compute)
        return HttpResponse(body, content_type="application/json")


class VersionViewSet(_DiffMixin, ListModelMixin, CreateMixin, RetrieveMixin):
    """Versions of an environment. POST copies a version from another environment of the project."""

    tag = Tag.PIPELINES
    queryset = Version.objects.all()
    serializer_class = s.VersionSerializer
    filters = {**BY_NAME, "spec_hash": sha256_parameter("spec_hash"), "draft_id": id_parameter("draft_id")}
    operations = {
        "list": Operation(
            "listVersions",
            P.VIEW_ENVIRONMENT,
            "List versions",
            "Returns the environment's pipeline versions, newest first.",
        ),
        "create": Operation(
            "copyVersion",
            P.OPERATE_ENVIRONMENT,
            "Copy a version from another environment",
            "Copies a compiled version from another environment of the same project. If the pipeline's newest version "
            "in this environment is already a copy of that version, returns the existing copy (200). If the version "
            "belongs to this environment, returns it without copying it (200).",
            body=s.CopyVersionSerializer,
            responses={201: s.VersionSerializer, 200: s.VersionSerializer},
            example={"from_version_id": ID},
        ),
        "retrieve": Operation(
            "getVersion",
            P.VIEW_ENVIRONMENT,
            "Get a version",
            "Returns the version with its plan and its compiled spec.",
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Created:
        version, is_new = versions.copy_version(environment=self.environment, actor=self.actor, **data)
        return Created(version, is_new=is_new)

    @Operation("getVersionSpec", P.VIEW_ENVIRONMENT, responses={(200, "text/plain"): OpenApiTypes.STR})
    def spec_kv(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Get the canonical spec of a version.

        Returns the exact bytes whose SHA-256 is the spec hash, as text with one `key=value` per line.
        """
        version = self.get_object()
        response = HttpResponse(version.spec_kv, content_type="text/plain; charset=us-ascii")
        response["ETag"] = f'"{version.spec_hash}"'
        return response

    @Operation("diffVersions", P.VIEW_ENVIRONMENT, parameters=AGAINST, responses=s.DiffSerializer)
    def diff(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compare two versions.

        Returns the changes from another version to this one.
        """
        version, against = self.get_object(), self.against()
        body = self.compute(diff_versions, str(against.pk), against.spec_kv, version.spec_kv)
        return HttpResponse(body, content_type="application/json")

    @Operation(
        "drawVersion", P.VIEW_ENVIRONMENT, responses={(200, "image/svg+xml"): OpenApiTypes.STR}, errors=(Conflict,)
    )
    def graph(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Draw a version.

        Returns the compiled pipeline as an SVG drawing. Fails with 409 if the drawing would exceed 4 MiB. In
        that case, read the version's `spec.kv` instead.
        """
        drawing = versions.draw(self.get_object(), compute=self.compute).encode()
        response = HttpResponse(drawing, content_type="image/svg+xml")
        response["ETag"] = f'"{sha256(drawing)}"'
        return response


class PlanSchemaViewSet(ApiViewSet):
    """The JSON Schema of a plan. It is the same for every caller."""

    tag = Tag.PIPELINES
    queryset = Draft.objects.none()

    @Operation("getPlanSchema", SIGNED_IN, responses=OpenApiTypes.OBJECT)
    def retrieve(self, request: Request) -> Response:
        """Get the JSON Schema of a plan.

        Returns a JSON Schema (2020-12) that editors can use to complete and validate plans. It changes only with a
        release of this service.
        """
        schema = plan_schema()
        headers = {"ETag": f'"{body_digest(schema)}"', "Cache-Control": "private, max-age=3600"}
        return Response(schema, headers=headers)
