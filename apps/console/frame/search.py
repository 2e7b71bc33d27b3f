"""The global search of the console: by the title of a list, the start of a name, an id, or the start of a hash.

A search reads a few rows of each kind, however many there are: it finds names and hashes by ranges of an index, and
ids by primary keys. In small tables, such as projects, it also finds the text inside names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import CharField, OuterRef, Q, Value
from django.db.models.functions import Upper
from django.http import HttpRequest
from django.utils.text import capfirst

from apps.console.frame.base import FoundBy, ReadOnlyAdmin
from apps.console.frame.columns import row_url, tenant_path
from apps.tenancy.models import Environment, folded

MOST = 5  # results of each kind
SHORTEST, _LONGEST = 2, 300  # characters of a search text; no name is longer than the maximum
_LAST = "\U0010ffff"  # a prefix followed by this character sorts after all strings with the prefix
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})…?")


type _Kinds = Sequence[tuple[ReadOnlyAdmin, FoundBy]]


@dataclass(frozen=True, slots=True)
class Found:
    """A search result: a row or a list."""

    title: str
    where: str
    url: str
    icon: str


def search(request: HttpRequest, admins: Iterable[ReadOnlyAdmin]) -> list[Found]:
    """Return the lists and the visible rows that match the text in the URL, at most ``MOST`` of each kind.

    Returns nothing if the text is too short or too long, or contains NUL. Takes at most two queries, and one more for
    each kind of row that was found.
    """
    text = search_text(request)
    if len(text) < SHORTEST or "\0" in text or len(text) > _LONGEST:
        return []
    visible = [each for each in admins if each.has_module_permission(request)]
    kinds = [(each, each.found_by) for each in visible if each.found_by]
    keys: dict[str, set[Any]] = {}
    for label, key in [*_named(request, kinds, text), *_others(request, kinds, text)]:
        keys.setdefault(label, set()).add(key)
    titles = [(each.menu_title(), each.list_url()) for each in visible]
    found = [Found(title, "List", url, "table_rows") for title, url in titles if text.casefold() in title.casefold()]
    del found[MOST:]
    for admin, found_by in kinds:
        if chosen := keys.get(admin.opts.label):
            rows = admin.visible_rows(request).filter(pk__in=chosen).order_by("-pk")
            if found_by.name:
                rows = rows.order_by(folded(found_by.name), "-pk")
            found += [_shown(admin, found_by, row) for row in rows[:MOST]]
    return found


def search_text(request: HttpRequest) -> str:
    """Return the search text in the URL."""
    return request.GET.get("s", "").strip()


def note(request: HttpRequest, found: Sequence[Found]) -> str:
    """Return a note on the number of results, or on what to type."""
    text = search_text(request)
    if len(text) < SHORTEST:
        return "Type the start of a name or of a hash, or a complete id."
    if not found:
        return "No results. You can search by the start of a name or of a hash, or by a complete id."
    count = "1 result" if len(found) == 1 else f"{len(found)} results"
    (_, most), *_ = Counter(each.icon for each in found).most_common(1)
    return f"{count}, at most {MOST} of a kind. Type more to narrow the search." if most == MOST else count


def _shown(admin: ReadOnlyAdmin, found_by: FoundBy, row: Any) -> Found:
    """Return a row as a result. The kind of row is in the title or in the line below, which also names the tenant."""
    title, kind, tenant = admin.page_title(row), capfirst(admin.singular), admin.tenant_of(row)
    parts = [*([] if title.startswith(kind) else [kind]), *([tenant_path(tenant)] if tenant is not None else [])]
    return Found(title, " · ".join(parts) or kind, row_url(row), found_by.icon)


def _named(request: HttpRequest, kinds: _Kinds, text: str) -> list[tuple[str, Any]]:
    """Return the model label and key of the rows whose name starts with the text.

    Each visible environment contributes its first ``MOST`` such rows of each kind. Takes at most one query, which reads
    a range of an index for each table and environment.
    """
    named = [each for each in kinds if each[1].name]
    environments = next((admin for admin, _ in kinds if admin.model is Environment), None)
    if not named or environments is None:
        return []
    begins = Q(sorted_as__gte=Upper(Value(text)), sorted_as__lt=Upper(Value(text + _LAST)))
    first_rows = [
        ArraySubquery(
            admin.model._base_manager.alias(sorted_as=folded(found_by.name))
            .filter(begins, environment=OuterRef("pk"))
            .order_by("sorted_as", "-pk")
            .values("pk")[:MOST]
        )
        for admin, found_by in named
    ]
    return [
        (admin.opts.label, key)
        for row in environments.visible_rows(request).order_by().values_list(*first_rows)
        for (admin, _), keys in zip(named, row, strict=True)
        for key in keys
    ]


def _others(request: HttpRequest, kinds: _Kinds, text: str) -> list[tuple[str, Any]]:
    """Return the model label and key of rows with the text as their id, at the start of a hash, or in ``words``.

    Takes at most one query, which reads only tables that may have such a row.
    """
    parts = [
        admin.visible_rows(request)
        .filter(condition)
        .order_by()
        .values_list(Value(admin.opts.label, output_field=CharField()), "pk")[:MOST]
        for admin, found_by in kinds
        for condition in _conditions(found_by, text.lower())
    ]
    if not parts:
        return []
    return list(parts[0].union(*parts[1:], all=True) if len(parts) > 1 else parts[0])


def _conditions(found_by: FoundBy, text: str) -> list[Q]:
    """Return the conditions for a match. Each condition uses one index, or a table with few visible rows."""
    conditions = []
    if _ID.fullmatch(text):
        conditions.append(Q(pk=UUID(text)))
    if match := _HASH.fullmatch(text):
        # The letter g sorts after all hexadecimal digits in every locale.
        start = f"sha256:{match[1]}"
        conditions += [Q(**{f"{each}__gte": start, f"{each}__lt": f"{start}g"}) for each in found_by.hashes]
    if found_by.words:
        conditions.append(Q(*[(f"{each}__icontains", text) for each in found_by.words], _connector=Q.OR))
    return conditions
