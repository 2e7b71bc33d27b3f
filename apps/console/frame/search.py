"""The global search of the console: by actions, titles of lists, the start of a word in a name, ids and hashes.

In small tables, such as projects, a search also finds the text inside names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Case, CharField, Q, TextField, Value, When
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils.text import capfirst

from apps.console.frame.base import FoundBy, ReadOnlyAdmin
from apps.console.frame.columns import row_url, tenant_path
from apps.console.frame.console_user import console_user_of
from apps.console.frame.found_actions import find_actions
from apps.console.frame.names import MOST, Kinds, find_named, starts_with
from apps.tenancy.models import ID_TAIL, folded, id_tail

SHORTEST, _LONGEST = 2, 300  # characters of a search text; no name is longer than the maximum
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_ID_END = re.compile(rf"…?(?=[0-9a-f-]*[0-9a-f]{{{ID_TAIL}}}$)([0-9a-f-]{{{ID_TAIL},35}})")
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})…?")


@dataclass(frozen=True, slots=True)
class Found:
    """A search result: an action, a list or a row."""

    title: str
    where: str
    url: str
    icon: str


def search(request: HttpRequest, admins: Iterable[ReadOnlyAdmin]) -> list[Found]:
    """Return the actions, lists and visible rows that match the text in the URL, at most ``MOST`` of each kind.

    Actions come first if the text contains a verb, such as "deploy"; otherwise they come last. Returns nothing if the
    text is too short or too long, or contains NUL.
    """
    text = search_text(request)
    if len(text) < SHORTEST or "\0" in text or len(text) > _LONGEST:
        return []
    visible = [each for each in admins if each.has_module_permission(request)]
    kinds = [(each, each.found_by) for each in visible if each.found_by]
    keys: dict[str, set[Any]] = {}
    named = find_named(console_user_of(request), kinds, [text])
    for label, key in [*named, *_others(request, kinds, text)]:
        keys.setdefault(label, set()).add(key)
    titles = [(each.menu_title(), each.list_url()) for each in visible]
    found = [Found(title, "List", url, "table_rows") for title, url in titles if text.casefold() in title.casefold()]
    del found[MOST:]
    for admin, found_by in kinds:
        if chosen := keys.get(admin.opts.label):
            rows = admin.visible_rows(request).filter(pk__in=chosen).order_by("-pk")
            if found_by.name:
                is_later_word = Case(When(starts_with(text, "sorted_as"), then=0), default=1)
                rows = rows.alias(sorted_as=folded(found_by.name)).order_by(is_later_word, "sorted_as", "-pk")
            found += [_shown(admin, found_by, row) for row in rows[:MOST]]
    actions = find_actions(request, visible, text)
    offered = [Found(each.label, each.where, each.url, each.icon) for each in actions]
    return [*offered, *found] if any(each.is_verb for each in actions) else [*found, *offered]


def search_text(request: HttpRequest) -> str:
    """Return the search text in the URL."""
    return request.GET.get("s", "").strip()


def note(request: HttpRequest, found: Sequence[Found]) -> str:
    """Return a note on the number of results, or on what to type."""
    text = search_text(request)
    if len(text) < SHORTEST:
        return "Type an action, such as \u201cdeploy\u201d, the start of a word in a name, or an id or hash."
    if not found:
        return (
            "No results. Type an action and its target, the start of a word in a name, at least the first 4 characters "
            f"of a hash, or at least the last {ID_TAIL} characters of an id."
        )
    count = "1 result" if len(found) == 1 else f"{len(found)} results"
    (_, most), *_ = Counter(each.icon for each in found).most_common(1)
    return f"{count}, at most {MOST} of a kind. Type more to narrow the search." if most == MOST else count


def _shown(admin: ReadOnlyAdmin, found_by: FoundBy, row: Any) -> Found:
    """Return a row as a result. The kind of row is in the title or in the line below.

    The line below also names the row's tenant, if there is one.
    """
    title, kind, tenant = admin.page_title(row), capfirst(admin.singular), admin.tenant_of(row)
    parts = [*([] if title.startswith(kind) else [kind]), *([tenant_path(tenant)] if tenant is not None else [])]
    return Found(title, " · ".join(parts) or kind, row_url(row), found_by.icon)


def _others(request: HttpRequest, kinds: Kinds, text: str) -> list[tuple[str, Any]]:
    """Return the model label and key of rows with the text in an id, at the start of a hash, or in ``words``.

    An id matches as a whole or by its end.
    """
    parts = [
        admin.visible_rows(request)
        .alias(tail=id_tail(), text_id=Cast("pk", TextField()))
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
    """Return conditions. A row matches if it meets at least one of them."""
    conditions = []
    if _ID.fullmatch(text):
        conditions.append(Q(pk=UUID(text)))
    elif match := _ID_END.fullmatch(text):
        conditions.append(Q(tail=match[1][-ID_TAIL:], text_id__endswith=match[1]))
    if match := _HASH.fullmatch(text):
        # The letter g sorts after all hexadecimal digits in every locale.
        start = f"sha256:{match[1]}"
        conditions += [Q(**{f"{each}__gte": start, f"{each}__lt": f"{start}g"}) for each in found_by.hashes]
    if found_by.words:
        conditions.append(Q(*[(f"{each}__icontains", text) for each in found_by.words], _connector=Q.OR))
    return conditions
