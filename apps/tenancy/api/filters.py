"""List filters that several resources share."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet

from byteor_cloud.errors import InvalidInput


class RowFilter(django_filters.FilterSet):
    """By time of creation, as every list."""

    created_after = django_filters.IsoDateTimeFilter("created_at", "gte")
    created_before = django_filters.IsoDateTimeFilter("created_at", "lt")


class NamedFilter(RowFilter):
    """Also by a part of the name."""

    name = django_filters.CharFilter(lookup_expr="icontains")


class LabelFilter(django_filters.CharFilter):
    """``?label=key=value``; several, separated by commas, must all match."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Rows with all the labels. Raises InvalidInput."""
        if not value:
            return qs
        labels = {}
        for part in value.split(","):
            key, equals, text = part.partition("=")
            if not (key and equals):
                raise InvalidInput.at("label", "label must be key=value, or several separated by commas.")
            labels[key] = text
        return qs.filter(**{f"{self.field_name}__contains": labels})
