"""The search over everything in the console: by the beginning of a name, by an id, or by the beginning of a hash.

However many rows there are, a search reads a few of each kind: names and hashes are ranges of an index, ids are keys.
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

MOST = 5  # of each kind
SHORTEST, _LONGEST = 2, 300  # characters; nothing has a longer name
_LAST = "\U0010ffff"  # no text that begins with X sorts after X and this character
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})…?")


type _Kinds = Sequence[tuple[ReadOnlyAdmin, FoundBy]]


@dataclass(frozen=True, slots=True)
class Found:
    """A row or a page that was found."""

    title: str
    where: str
    url: str
    icon: str


def search(request: HttpRequest, admins: Iterable[ReadOnlyAdmin]) -> list[Found]:
    """Return the lists and the visible rows that the text in the address finds.

    Each kind of rows adds one query if it has any.
    """
    text = asked(request)
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


def asked(request: HttpRequest) -> str:
    """Return the text that is searched for."""
    return request.GET.get("s", "").strip()


def note(request: HttpRequest, found: Sequence[Found]) -> str:
    """Say how many were found, or what to type."""
    text = asked(request)
    if len(text) < SHORTEST:
        return "Type the beginning of a name, a whole id, or the beginning of a hash."
    if not found:
        return "Nothing that you may see has this name, id or hash. A name or a hash is found by its beginning."
    said = "1 result" if len(found) == 1 else f"{len(found)} results"
    (_, most), *_ = Counter(each.icon for each in found).most_common(1)
    return f"{said}, at most {MOST} of a kind. A longer text finds fewer." if most == MOST else said


def _shown(admin: ReadOnlyAdmin, found_by: FoundBy, row: Any) -> Found:
    """Say what the row is, in its title or below it, and to which organization, project and environment it belongs."""
    title, kind, tenant = admin.page_title(row), capfirst(admin.singular), admin.tenant_of(row)
    parts = [*([] if title.startswith(kind) else [kind]), *([tenant_path(tenant)] if tenant is not None else [])]
    return Found(title, " · ".join(parts) or kind, row_url(row), found_by.icon)


def _named(request: HttpRequest, kinds: _Kinds, text: str) -> list[tuple[str, Any]]:
    """Return label and key of the rows whose name begins with the text: of each visible environment the first ones.

    It is one query, which reads a range of an index for each table and environment.
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
    """Return label and key of the rows with this id, with a hash that begins with the text, or with the words.

    It is one query. It contains only the tables that could have such a row.
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
    """Return conditions each of which one index answers, or a table that has few visible rows."""
    conditions = []
    if _ID.fullmatch(text):
        conditions.append(Q(pk=UUID(text)))
    if match := _HASH.fullmatch(text):
        # In every locale a letter sorts after the digits and the letters before it.
        start = f"sha256:{match[1]}"
        conditions += [Q(**{f"{each}__gte": start, f"{each}__lt": f"{start}g"}) for each in found_by.hashes]
    if found_by.words:
        conditions.append(Q(*[(f"{each}__icontains", text) for each in found_by.words], _connector=Q.OR))
    return conditions
