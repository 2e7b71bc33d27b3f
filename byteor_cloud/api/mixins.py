"""Mixins for views that list, create, retrieve, update and delete rows. Subclasses call the services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.db.models import Model
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from byteor_cloud.api.operations import Errors
from byteor_cloud.api.view_sets import ResourceViewSet
from byteor_cloud.errors import Conflict, PreconditionFailed

__all__ = ["CreateMixin", "Created", "DestroyMixin", "ListModelMixin", "RetrieveMixin", "UpdateMixin"]


@dataclass(frozen=True, slots=True)
class Created:
    """The result of a POST. Only its response contains ``secrets``. ``is_new`` is false if the row existed before."""

    row: Model
    secrets: dict[str, Any] = field(default_factory=dict)
    is_new: bool = True


class CreateMixin(ResourceViewSet):
    mixin_errors: ClassVar[Mapping[str, Errors]] = {"create": (Conflict,)}

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Create a row. Return 201 with the row and its ``Location``, or 200 with the row if it existed already."""
        made = self.perform_create(self.validated(request))
        if not isinstance(made, Created):
            made = Created(made)
        response = self.represent(made.row, status=201 if made.is_new else 200, **made.secrets)
        if made.is_new:
            response["Location"] = f"{request.path}/{self.path_id(made.row)}"
        return response

    def perform_create(self, data: dict[str, Any]) -> Model | Created:
        """Call the service with the checked body. Return the row, or a Created."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it


class RetrieveMixin(ResourceViewSet):
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the row."""
        return self.represent(self.get_object())


class UpdateMixin(ResourceViewSet):
    mixin_errors: ClassVar[Mapping[str, Errors]] = {"update": (Conflict, PreconditionFailed)}

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Update only the fields in the body, and return the row."""
        row = self.get_object()
        changed = self.perform_update(row, self.validated(request, partial=True, row=row))
        return self.represent(changed)

    def perform_update(self, row: Any, data: dict[str, Any]) -> Model:
        """Call the service with the row and the checked fields."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it


class DestroyMixin(ResourceViewSet):
    mixin_errors: ClassVar[Mapping[str, Errors]] = {"destroy": (Conflict,)}

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Call ``perform_destroy``, which deletes, revokes or hides the row. Return 204."""
        self.perform_destroy(self.get_object())
        return Response(status=204)

    def perform_destroy(self, row: Any) -> None:
        """Call the service with the row."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it
