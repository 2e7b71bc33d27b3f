"""The descriptions in ``tests/resources``, combined: operations, tables, acts and pages by name."""

from __future__ import annotations

import pkgutil
import re
from dataclasses import replace
from importlib import import_module
from typing import Any

from apps.tenancy.permissions import Permission
from tests import resources
from tests.resources import Act, E, Maker, Page, Place, Resource

RESOURCES: list[Resource] = [
    import_module(f"{resources.__name__}.{module.name}").RESOURCE for module in pkgutil.iter_modules(resources.__path__)
]
_CALLS = [call for resource in RESOURCES for call in resource.calls]
CALLS = {call.id: call for call in _CALLS}
TABLES = {table.label: table for resource in RESOURCES for table in resource.tables}
assert len(CALLS) == len(_CALLS), "two operations have the same id"


def needed(operation: str) -> Permission | None:
    """Return the permission that the operation requires, or None if it requires no role."""
    needs = CALLS[operation].needs
    return needs if isinstance(needs, Permission) else None


def _completed(act: Act) -> Act:
    """Return the act with the data of its operation, if it has an operation.

    The data are the operation's permission and, if the act names no row, the operation's row.
    """
    if not act.operation:
        return act
    return replace(act, needs=needed(act.operation), on=act.on or CALLS[act.operation].on)


ACTS: dict[tuple[str, str], Act] = {
    (label, name): _completed(act) for label, table in TABLES.items() for name, act in table.acts.items()
}
PAGES: dict[str, Page] = {
    name: replace(page, table=label if page.of_row else "", needs=page.needs or needed(page.operation))
    for label, table in TABLES.items()
    for name, page in table.pages.items()
}
# Who sees the rows of each table of the console, in the form of ``Table.seen_by``.
SEES = {label: table.seen_by for label, table in TABLES.items() if table.row is not None}
OPERATORS_ONLY = {label for label, needs in SEES.items() if needs is None}  # tables for installation operators


def names_in(path: str) -> list[str]:
    """Return the name of each id in the path. The name of ``{id}`` is the segment before it."""
    return [segment or parameter for segment, parameter in re.findall(r"([a-z-]+)/\{id\}|\{([a-z_]+)\}", path)]


_IN_ENVIRONMENTS = {name for call in _CALLS if call.path.startswith(E) for name in names_in(call.path)} - {"org_id"}
_IDS = {name: make for resource in RESOURCES for name, make in resource.ids.items()}


def id_of(row: Any) -> Any:
    """Return the id by which a path refers to a row. A string is its own id."""
    return getattr(row, "pk", row)


def make_ids(place: Place, *, of_environment: bool) -> dict[str, Any]:
    """Create the rows whose ids occur in paths of environments, or all others. Return the ids by name.

    The organization is one of the others, although its id occurs in paths of environments.
    """
    return {name: id_of(place.get(make)) for name, make in _IDS.items() if (name in _IN_ENVIRONMENTS) == of_environment}


def ids_on(make: Maker, path: str, place: Place) -> dict[str, Any]:
    """Create a row. Return its id and, if it has one, its environment's id, by their names in the path."""
    row = make(place)
    found = {"env_id": row.environment_id} if hasattr(row, "environment_id") else {}
    return {**found, names_in(path)[-1]: id_of(row)}
