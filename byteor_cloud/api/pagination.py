"""Cursor pagination: newest first, by id."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from byteor_cloud.errors import InvalidInput


class NewestFirst(CursorPagination):
    """``?limit=`` 1..200 (50), ``?cursor=``; ids are UUIDv7, so id order is creation order."""

    ordering = "-id"
    page_size = 50
    max_limit = 200
    page_size_query_param = "limit"

    def get_page_size(self, request: Request) -> int:
        """The limit asked for. Raises InvalidInput."""
        text = request.query_params.get("limit", str(self.page_size))
        if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= self.max_limit:
            raise InvalidInput.at("limit", f"limit must be a whole number from 1 to {self.max_limit}.")
        return int(text)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        """A page of ``queryset``. Raises InvalidInput."""
        self._parse_id = queryset.model._meta.pk.to_python
        page: list[Any] | None = super().paginate_queryset(queryset, request, view)
        if settings.CONFIG.public_base_url:
            self.base_url = settings.CONFIG.public_base_url + request.get_full_path()
        return page

    def decode_cursor(self, request: Request) -> Cursor | None:
        """The cursor asked for. Raises InvalidInput on one that this API did not make."""
        try:
            cursor = super().decode_cursor(request)
            if cursor and cursor.position is not None:
                self._parse_id(cursor.position)
        except Exception:  # noqa: BLE001,RUF100  DRF and the fields raise several kinds; all mean the same here
            raise InvalidInput.at("cursor", "Not a cursor of this list.") from None
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """DRF's own says ``nullable``, which OpenAPI 3.1 does not know."""
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }
