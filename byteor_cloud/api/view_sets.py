"""The base of all view sets: declarations, parameters, bodies, rows and ETags, without tenancy and authentication."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, final
from uuid import UUID

from django.conf import settings
from django.db.models import Model, Q, QuerySet
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from byteor_cloud.api.bodies import check_declared_length, declared_length, is_chunked
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.api.declared import DeclaringView
from byteor_cloud.api.etags import body_digest, matches_tag, not_modified, read_tags
from byteor_cloud.api.lists import listed_serializer, shown_columns
from byteor_cloud.api.operations import Errors, Operation
from byteor_cloud.api.parameters import PAGE, Parameter, check_query
from byteor_cloud.computing.compute import Compute
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.database.connections import pause_between_rows
from byteor_cloud.database.large_columns import with_small_values, without_large
from byteor_cloud.errors import (
    DomainError,
    Forbidden,
    NotFound,
    PreconditionFailed,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)


class IgnoreAccept(BaseContentNegotiation):
    """Content negotiation that ignores ``Accept`` and chooses the view's first renderer."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ResourceViewSet(DeclaringView, GenericViewSet[Any]):
    """A view set for callers with a credential."""

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    content_negotiation_class = IgnoreAccept
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"

    # The credential families that operations accept unless they declare others.
    credentials: ClassVar[tuple[StrEnum, ...]]
    # The errors that any action can return: for the credential, the rate limit, the path or a failed dependency.
    common_errors: ClassVar[Errors] = (Unauthenticated, Forbidden, NotFound, TooManyRequests, Unavailable)
    # The errors of the actions that a mixin handles.
    mixin_errors: ClassVar[Mapping[str, Errors]] = {}
    # JSON Schemas by name, for bodies that no serializer describes.
    schemas: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # The id of another view's operation that returns a single row of the list, or None if there is no such operation.
    single_operation: ClassVar[str | None] = None
    # Query parameters of the list. The parsed parameters of any action are in ``parameter_values``.
    filters: ClassVar[Mapping[str, Parameter]] = {}
    parameter_values: Mapping[str, Any] = {}

    # The setting with the maximum size of a body, and the bytes that a form may have in addition to its file.
    body_cap: ClassVar[str] = "max_body_bytes"
    body_allowance: ClassVar[int] = 0

    # Fields that change without an edit, such as those that agents report. ``If-Match`` ignores them.
    reported_fields: ClassVar[frozenset[str]] = frozenset()
    # Fields that the ETag's digest leaves out, such as large ones that change only with the row's revision or id.
    undigested_fields: ClassVar[frozenset[str]] = frozenset()

    # -- declarations -------------------------------------------------------------------------------------------

    @property
    def operation(self) -> Operation | None:
        """The declaration of the requested action, or None if it has none."""
        return self.operations.get(self.action)

    @classmethod
    def families(cls, action: str) -> tuple[StrEnum, ...]:
        """Return the credential families that ``action`` accepts."""
        operation = cls.operations.get(action)
        return operation.credentials if operation and operation.credentials else cls.credentials

    @classmethod
    def is_list(cls, action: str) -> bool:
        """Return whether ``action`` responds with a page of rows."""
        return action == "list"

    @classmethod
    def errors_of(cls, action: str) -> frozenset[type[DomainError]]:
        """Return the errors that are declared for ``action``."""
        of_mixins = (vars(base).get("mixin_errors", {}).get(action, ()) for base in cls.__mro__)
        return frozenset(cls.common_errors).union(cls.operations[action].errors, *of_mixins)

    @property
    def compute(self) -> Compute:
        """The function with which services compute for this request."""
        return compute_for(self.request._request)

    # -- parameters ---------------------------------------------------------------------------------------------

    @classmethod
    def query_parameters(cls, action: str) -> Mapping[str, Parameter]:
        """Return the query parameters that ``action`` accepts."""
        return {**PAGE, **cls.filters} if cls.is_list(action) else super().query_parameters(action)

    def check_parameters(self, request: Request) -> None:
        """Parse the query into ``parameter_values``. Raises InvalidInput (see ``check_query``)."""
        self.parameter_values = check_query(self.query_parameters(self.action), request._request.GET)

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep only the rows that match the given filters."""
        for name in self.filters.keys() & self.parameter_values.keys():
            parameter, value = self.filters[name], self.parameter_values[name]
            queryset = queryset.filter(
                parameter.condition(value) if parameter.condition else Q(**{str(parameter.lookup): value})
            )
        return queryset

    # -- bodies -------------------------------------------------------------------------------------------------

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the request, and receive its body only after the caller is authenticated and permitted."""
        if self.action not in self.action_map.values():
            raise MethodNotAllowed(request.method or "")
        super().initial(request, *args, **kwargs)
        has_body = request.method in {"POST", "PUT", "PATCH"} and self.admit_body(request)
        self.check_parameters(request)
        if has_body:
            # Receive the body before the first transaction, so that a slow client occupies no database connection.
            request.data  # noqa: B018  DRF parses the body at the first access
        self.prepare(request)

    def prepare(self, request: Request) -> None:
        """Compute what the action needs before its transaction starts. Subclasses may override this."""

    def admit_body(self, request: Request) -> bool:
        """Return whether there is a body to read. Raises if it is too large (413) or has another media type (415)."""
        sent = request._request
        check_declared_length(sent, getattr(settings.CONFIG, self.body_cap) + self.body_allowance)
        if not (declared_length(sent) or is_chunked(sent)):
            return False
        parsers = self.get_parsers()
        if self.get_content_negotiator().select_parser(request, parsers) is None:
            raise UnsupportedMediaType(f"This media type is not accepted. Send {parsers[0].media_type}.")
        if is_chunked(sent):
            # Without Content-Length, DRF would ignore the body.
            request._stream = sent  # type: ignore[assignment]  # the stubs declare another type
        return True

    # -- rows ---------------------------------------------------------------------------------------------------

    @final
    def get_queryset(self) -> QuerySet[Any]:
        """Return the rows in the scope. In a list, large values are left out.

        Subclasses override ``scoped`` and ``narrow`` instead.
        """
        rows = self.narrow(self.scoped(super().get_queryset()))
        if self.is_list(self.action):
            serializer: Any = super().get_serializer_class()
            shown = shown_columns(serializer)
            rows = with_small_values(without_large(rows, shown), shown)
        return pause_between_rows(rows)

    def get_serializer_class(self) -> Any:
        """Return the serializer of the action. In a list, large values are null."""
        serializer: Any = super().get_serializer_class()
        if not self.is_list(self.action):
            return serializer
        model: Any = super().get_queryset().model
        retrieve = self.operations.get("retrieve")
        return listed_serializer(serializer, model, retrieve.id if retrieve else self.single_operation)

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep only the rows in the scope of the URL."""
        return queryset

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Restrict or join the rows further. Subclasses may override this."""
        return queryset

    def paginate_queryset(self, queryset: Any) -> Any:
        """Return the rows of the page. Other requests may compute between the rows."""
        return Pausing(super().paginate_queryset(queryset) or ())

    def get_object(self) -> Any:
        """Return the row in the URL. Raises NotFound."""
        row = self.get_queryset().filter(**self.object_lookup()).first()
        if row is None:
            raise NotFound("There is no resource at this URL.")
        return row

    def object_lookup(self) -> dict[str, Any]:
        """Return the lookup that finds the row by the last id in the path."""
        return {"pk": self.kwargs[self.lookup_url_kwarg]}

    def path_id(self, row: Any) -> UUID:
        """Return the last id in the path of this row. ``object_lookup`` finds the row by this id."""
        found: UUID = row.pk
        return found

    def validated(self, request: Request, *, partial: bool = False, row: Model | None = None) -> dict[str, Any]:
        """Return the body, checked by the serializer of the operation or of the view. Raises ValidationError."""
        shape = self.operations[self.action].body or self.get_serializer_class()
        serializer = shape(row, data=request.data, partial=partial, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        data: dict[str, Any] = serializer.validated_data
        return data

    def represent(self, row: Model, *, status: int = 200, **extra: Any) -> Response:
        """Return a response with the row, its ``extra`` fields, and its revision for the ETag."""
        response = Response({**self.get_serializer(row).data, **extra}, status=status)
        response.revision = getattr(row, "revision", 0)  # type: ignore[attr-defined]  # finalize_response reads the attribute
        return response

    # -- ETag ---------------------------------------------------------------------------------------------------

    @property
    def expected_revision(self) -> int | None:
        """The revision that ``If-Match`` requires, or None if the header is missing or ``*``.

        Compares the tags, but not their digests of reported fields. The service later locks the row and compares the
        revision again. Raises NotFound, and PreconditionFailed if no tag matches.
        """
        header = self.request.headers.get("If-Match", "*").strip()
        if header == "*":
            return None
        row = self.get_object()
        current = self._without_reports(self.etag(self.get_serializer(row).data, row.revision))
        # The comparison is strong (RFC 9110, 13.1.1): a weak tag never matches.
        if current not in map(self._without_reports, read_tags(header)):
            raise PreconditionFailed("If-Match does not match the current ETag. Read the resource again.")
        return int(row.revision)

    def etag(self, data: Mapping[str, Any], revision: int) -> str:
        """Return the ETag: the row's revision, a digest of other fields, and a digest of ``reported_fields``, if any.

        Neither digest covers ``undigested_fields``.
        """
        omitted = self.reported_fields | self.undigested_fields
        edited = {name: value for name, value in data.items() if name not in omitted}
        tag = f"{revision}.{body_digest(edited)}"
        if self.reported_fields:
            tag += "." + body_digest({name: data[name] for name in sorted(self.reported_fields)})
        return f'"{tag}"'

    def _without_reports(self, tag: str) -> str:
        """Return the part of a tag that ``If-Match`` compares, so that a heartbeat does not make an edit fail."""
        return tag.rpartition(".")[0] if self.reported_fields else tag

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add caching headers, with an ETag for a single resource. Return 304 for a GET if the caller has that ETag."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.setdefault("Cache-Control", "private, no-store")
        data = getattr(response, "data", None)
        if response.status_code in {200, 201} and isinstance(data, dict) and "id" in data:
            response["ETag"] = self.etag(data, getattr(response, "revision", 0))
        may_match = request.method == "GET" and response.status_code == 200 and "ETag" in response
        if may_match and matches_tag(request.headers.get("If-None-Match", ""), response["ETag"]):
            return not_modified(response)
        return response
