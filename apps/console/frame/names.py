"""Finding rows by name with an index, in tables that may have many rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import batched, chain
from typing import Any, Final

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Q, QuerySet, Value
from django.db.models.functions import Upper

from apps.console.frame.base import FoundBy, ReadOnlyAdmin
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.personal import personal_query
from apps.console.frame.scope import visible_tenants
from apps.tenancy.models import INDEXED_WORDS, Environment, from_word

MOST: Final = 5  # rows of each kind
_LAST = "\U0010ffff"  # a prefix followed by this character sorts after all strings with the prefix
_WORDS = range(1, INDEXED_WORDS + 1)

type Kinds = Sequence[tuple[ReadOnlyAdmin, FoundBy]]


def starts_with(text: str, alias: str) -> Q:
    """Return the condition that the folded name at ``alias`` starts with the text."""
    return _is_between(text, text + _LAST, alias)


def _is_between(first: str, last: str, alias: str) -> Q:
    return Q(**{f"{alias}__gte": Upper(Value(first)), f"{alias}__lt": Upper(Value(last))})


def find_named(console_user: ConsoleUser, kinds: Kinds, texts: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the model label and key of rows whose name, or one of its first words, starts with one of the texts.

    Each visible environment contributes the first ``MOST`` such rows of each kind, text and position of the word.
    The result may contain rows that the person may not see.
    """
    named = tuple((admin.model, found_by.name) for admin, found_by in kinds if found_by.name)
    if not named or not texts:
        return []
    query, values = personal_query(_first_rows, named, console_user, *chain(*((text, text + _LAST) for text in texts)))
    labels = [model._meta.label for model, _ in named for _ in texts for _ in _WORDS]
    return [
        (label, key) for row in query.tuples(*values) for label, keys in zip(labels, row, strict=True) for key in keys
    ]


def _first_rows(named: Iterable[tuple[Any, str]], console_user: ConsoleUser, *bounds: str) -> QuerySet[Any, Any]:
    return visible_tenants(Environment, console_user).values_list(
        *(
            ArraySubquery(
                model._base_manager.alias(sorted_as=from_word(field, number))
                .filter(_is_between(first, last, "sorted_as"), environment=OuterRef("pk"))
                .order_by("sorted_as", "-pk")
                .values("pk")[:MOST]
            )
            for model, field in named
            for first, last in batched(bounds, 2)
            for number in _WORDS
        )
    )
