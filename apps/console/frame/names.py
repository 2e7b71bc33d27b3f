"""Finding rows by name in tables that may have many rows: each search reads a few entries of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Q, QuerySet, Value
from django.db.models.functions import Upper

from apps.console.frame.base import FoundBy, ReadOnlyAdmin
from apps.tenancy.models import INDEXED_WORDS, from_word

MOST: Final = 5  # rows of each kind
_LAST = "\U0010ffff"  # a prefix followed by this character sorts after all strings with the prefix

type Kinds = Sequence[tuple[ReadOnlyAdmin, FoundBy]]


def starts_with(text: str, alias: str) -> Q:
    """Return the condition that the folded name at ``alias`` starts with the text."""
    return Q(**{f"{alias}__gte": Upper(Value(text)), f"{alias}__lt": Upper(Value(text + _LAST))})


def find_named(environments: QuerySet[Any], kinds: Kinds, texts: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the model label and key of rows whose name, or one of its first words, starts with one of the texts.

    Each environment contributes the first ``MOST`` such rows of each kind, text and position of the word. Takes at most
    one query, which reads a range of an index for each of these.
    """
    named = [(admin, found_by.name) for admin, found_by in kinds if found_by.name]
    if not named or not texts:
        return []
    labels = [admin.opts.label for admin, _ in named for _ in texts for _ in range(INDEXED_WORDS)]
    first_rows = [
        ArraySubquery(
            admin.model._base_manager.alias(sorted_as=from_word(field, number))
            .filter(starts_with(text, "sorted_as"), environment=OuterRef("pk"))
            .order_by("sorted_as", "-pk")
            .values("pk")[:MOST]
        )
        for admin, field in named
        for text in texts
        for number in range(1, INDEXED_WORDS + 1)
    ]
    return [
        (label, key)
        for row in environments.order_by().values_list(*first_rows)
        for label, keys in zip(labels, row, strict=True)
        for key in keys
    ]
