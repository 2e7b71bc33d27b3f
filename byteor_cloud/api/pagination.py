"""Cursor pagination: newest first, by id."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from byteor_cloud.api.parameters import LIMIT
from byteor_cloud.errors import InvalidInput


class NewestFirst(CursorPagination):
    """Pages of up to ``limit`` rows (default 50, at most 200), from ``cursor``."""

    ordering = "-id"
    page_size = LIMIT.schema["default"]
    page_size_query_param = "limit"

    def get_page_size(self, request: Request) -> int:
        """Return the requested limit, which the view has already checked."""
        return int(request.query_params.get("limit", self.page_size))

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        """Return one page of ``queryset``. Raises InvalidInput for an invalid cursor."""
        self._parse_id = queryset.model._meta.pk.to_python
        page: list[Any] | None = super().paginate_queryset(queryset, request, view)
        if settings.CONFIG.public_base_url:
            self.base_url = settings.CONFIG.public_base_url + request.get_full_path()
        return page

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return the requested cursor, or None for the first page. Raises InvalidInput for an invalid cursor."""
        try:
            cursor = super().decode_cursor(request)
            if cursor and cursor.position is not None:
                self._parse_id(cursor.position)
        except Exception:  # noqa: BLE001,RUF100  DRF and the fields raise several types; all mean an invalid cursor
            raise InvalidInput.at_parameter(
                "cursor",
                "The cursor does not belong to this list. Use `next_cursor` of an earlier page.",
                code="unknown_cursor",
            ) from None
        return cursor

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page with its links and the cursor of the next page."""
        following = self.get_next_link()
        cursor = None if following is None else parse_qs(urlsplit(following).query)[self.cursor_query_param][0]
        page = {"next": following, "previous": self.get_previous_link(), "next_cursor": cursor, "results": data}
        return Response(page)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of a page. DRF's own uses ``nullable``, which OpenAPI 3.1 does not support."""
        link = {"type": ["string", "null"], "format": "uri"}
        cursor = {"type": ["string", "null"]}
        return {
            "type": "object",
            "required": ["next", "previous", "next_cursor", "results"],
            "properties": {
                "next": {**link, "description": "The URL of the next page. Null on the last page."},
                "previous": {**link, "description": "The URL of the previous page. Null on the first page."},
                "next_cursor": {
                    **cursor,
                    "description": "The value of the `cursor` parameter for the next page. Null on the last page.",
                },
                "results": {**schema, "description": "The rows of this page."},
            },
        }
