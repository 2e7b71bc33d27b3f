"""Queries for the rows that a person may see, compiled once for all people whose roles have the same form.

The form of a person's roles is the number of organizations and projects, and the role in each. All installation
operators have the same form. The ids of a person's organizations and projects are parameters of the SQL, so people
whose roles have the same form share the compiled query.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db.models import IntegerField, QuerySet, Subquery

from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.large import MOST_COUNTED, shown_count
from apps.tenancy.access import OrganizationRoles
from apps.tenancy.models import User
from apps.tenancy.permissions import Role
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.database.together import Plan

# For each organization, the person's role in it (or "") and then the person's roles in its projects. None for an
# installation operator, who sees everything.
type _Form = tuple[tuple[str, ...], ...] | None
# A function that returns a query for a person. Its arguments are a hashable constant (such as a table), the person, and
# ids and texts. The query is compiled once and shared, so it may depend on nothing else.
type _Build = Callable[..., QuerySet[Any, Any]]


def visible_row(model_admin: Any, console_user: ConsoleUser, key: str) -> Any:
    """Return the row with this UUID; None if the person sees no such row, or if the key is not a UUID."""
    try:
        pk = UUID(key)
    except ValueError:
        return None
    query, values = personal_query(_row, model_admin, console_user, pk)
    return query.first(*values)


def _row(model_admin: Any, console_user: ConsoleUser, pk: UUID) -> QuerySet[Any]:
    rows = model_admin.narrow(model_admin.model._default_manager.filter(pk=pk), console_user)
    return rows.select_related(*model_admin.related or (None,))  # type: ignore[no-any-return]  # the admin class is Any


def plan_counts_below(tables: Iterable[tuple[Any, str]], console_user: ConsoleUser, pk: UUID) -> Plan[list[int | str]]:
    """Return the ``Plan`` for the numbers of visible rows in each table that refer to the row ``pk``.

    Each table is given by its admin class and the name of the foreign key. Large numbers become texts, as in
    ``count_each``.
    """
    if not (tables := tuple(tables)):
        return []
    query, values = personal_query(_counts, tables, console_user, pk)
    (((*counts,),),) = yield [query.statement(*values)]
    return [shown_count(count or 0) for count in counts]


def _counts(tables: tuple[tuple[Any, str], ...], console_user: ConsoleUser, pk: UUID) -> QuerySet[Any, Any]:
    rows = (
        admin.narrow(admin.model._default_manager.filter(**{field: pk}), console_user).order_by().values("pk")
        for admin, field in tables
    )
    # A row of the session's user, because a query needs a table.
    return User.objects.filter(pk=User(pk=console_user.user_id).pk).values_list(
        *(CountRows(each[: MOST_COUNTED + 1]) for each in rows)
    )


class CountRows(Subquery):
    """The number of rows of a query."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) counted)"
    output_field = IntegerField()


def personal_query(
    build: _Build, about: Hashable, console_user: ConsoleUser, *given: UUID | str
) -> tuple[CompiledQuery[Any], list[Any]]:
    """Return the compiled query ``build(about, console_user, *given)``, and the values with which to run the query.

    ``given`` are ids and texts.
    """
    form, own = _split(console_user)
    query = _compiled(build, about, tuple(map(type, given)), form)
    return query, [console_user.now, console_user.user_id, *given, *own]


def _split(console_user: ConsoleUser) -> tuple[_Form, list[UUID]]:
    """Return the form of the person's roles, and the ids of their organizations and projects in the same order."""
    if console_user.is_superuser:
        return None, []
    parts = []
    for organization, roles in console_user.roles.items():
        projects = sorted(roles.projects.items(), key=lambda item: item[1])
        parts.append(
            ((roles.org or "", *(str(role) for _, role in projects)), [organization, *(pk for pk, _ in projects)])
        )
    parts.sort()
    return tuple(form for form, _ in parts), [pk for _, keys in parts for pk in keys]


@lru_cache(maxsize=500)
def _compiled(build: _Build, about: Hashable, kinds: tuple[type, ...], form: _Form) -> CompiledQuery[Any]:
    count = len(kinds)

    def made(now: datetime, user_id: UUID, *values: Any) -> QuerySet[Any, Any]:
        own = iter(values[count:])
        roles = {
            next(own): OrganizationRoles(Role(org) if org else None, {next(own): Role(role) for role in projects})
            for org, *projects in form or ()
        }
        return build(about, ConsoleUser(user_id, form is None, roles, now), *values[:count])

    owned = sum(map(len, form or ()))
    return CompiledQuery(made, datetime, UUID, *kinds, *[UUID] * owned, uses_all=False)
