"""Lists without large JSON values."""

from __future__ import annotations

from typing import Any

from django.db.models import Case, F, Func, IntegerField, JSONField, QuerySet, TextField, When
from django.db.models.functions import Cast
from django.db.models.lookups import LessThanOrEqual

from apps.tenancy.api.fields import JSONObjectField

MAX_LISTED_BYTES = 4096


class _ByteLength(Func):
    function, output_field = "octet_length", IntegerField()


def defer_large_json(queryset: QuerySet[Any], path: str) -> QuerySet[Any]:
    """Defer the JSON column ``path``, and add ``listed_<column>``: its value if it has at most 4 KiB, else null.

    The database compares the size, so that a page of large values is never read into this process.
    """
    is_small = LessThanOrEqual(_ByteLength(Cast(F(path), TextField())), MAX_LISTED_BYTES)
    shown = Case(When(is_small, then=F(path)), output_field=JSONField(null=True))
    listed: QuerySet[Any] = queryset.defer(path).annotate(**{f"listed_{path.rpartition('__')[2]}": shown})
    return listed


class ListedJSONField(JSONObjectField):
    """A JSON object in a list: null if ``defer_large_json`` left it out."""

    def __init__(self, **kwargs: Any) -> None:
        text = "A JSON object. Null if it has more than 4 KiB; get the single resource to see it."
        super().__init__(**{"allow_null": True, "read_only": True, "help_text": text, **kwargs})
