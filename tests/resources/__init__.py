"""Descriptions of the resources for tests, one module per resource. ``tests/described.py`` imports every module here.

A module describes operations, tables and console pages, and how to create their rows. Tests fail for an operation,
console table, act or page without a description. The required permissions are written down here from the contract, and
never read from the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission
from tests.permissions import NoRole
from tests.worlds import World

O = "/api/v1/orgs/{org_id}"  # noqa: E741  ``O + "/projects"`` reads as a path
P = O + "/projects/{project_id}"
E = P + "/environments/{env_id}"
A = "/api/v1/agents/{id}"


class Place:
    """An environment, and the rows that were created for it.

    A maker is a function that returns something of a place, usually a row or its id, and creates it if necessary. It
    calls ``get`` with other makers for the rows that it needs.
    """

    def __init__(self, world: World, environment: Environment, suffix: str = "1") -> None:
        self.world, self.environment, self.suffix = world, environment, suffix
        self._made: dict[Callable[[Any], Any], Any] = {}

    def get[Made](self, make: Callable[[Place], Made]) -> Made:
        """Return what ``make`` returns for this place. Later calls return the same object."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Made, self._made[make])

    def name(self, kind: str) -> str:
        """Return a name that no row in another place has."""
        return f"{self.world.name}-{kind}-{self.suffix}"


type Maker = Callable[[Place], Any]


def _nothing(place: Place) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Further:
    """A request body for which an operation needs an additional permission."""

    needs: Permission
    body: Callable[[Place], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """An operation, the permission that it needs, and a valid call.

    ``body`` returns the request body. The default is the example in the OpenAPI document, with other ``values`` for
    some members, such as ids. ``on`` creates the row for the call, if the call would fail on the row from ``ids``.
    """

    id: str  # the ``operationId``
    method: str
    path: str
    needs: Permission | NoRole
    status: int = 200
    values: Callable[[Place], dict[str, Any]] = _nothing
    body: Maker | None = None
    has_body: bool = True  # does not apply to GET and DELETE
    on: Maker | None = None
    query: Callable[[Place], str] = lambda place: ""
    on_prod: Permission | None = None  # also needed in an environment with the posture prod
    further: Mapping[str, Further] = field(default_factory=dict)  # keyed by a description of the request
    scope: str = ""  # the scope that the agent's key needs
    # Whether the permission in any project of the organization is enough, although the path names no project. The
    # operation then covers only rows of projects in which the caller has the permission.
    in_any_project: bool = False
    null: frozenset[str] = frozenset()  # fields that this list returns as null if their values are large
    is_free: bool = False  # whether a single row can be read whatever these fields contain


@dataclass(frozen=True)
class Act:
    """An act of the console, the permission that it needs in the scope of its row, and a valid form.

    An act with an ``operation`` needs the permission that the operation ``needs``. The default for its ``on`` is the
    operation's, and ``on`` is as in ``Call``. Everybody who sees the row may perform an act with neither ``operation``
    nor ``needs``, subject to the ``only_`` fields.
    """

    operation: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    needs: Permission | None = None
    on_prod: Permission | None = None
    in_organization: Permission | None = None  # also needed if the row belongs to no project of the organization
    on: Maker | None = None
    only_self: bool = False
    only_requester: bool = False  # whether only the person who requested the row may perform the act
    only_operators: bool = False  # whether only installation operators may perform the act
    on_page: bool = True  # whether the row's page offers the act


@dataclass(frozen=True)
class Page:
    """A console page that Django's admin does not provide: the operation that it serves, and the page's methods."""

    operation: str
    methods: tuple[str, ...] = ("GET",)
    query: str = ""
    of_row: bool = True  # whether the page belongs to a row; otherwise, the permission in any scope is enough
    is_file: bool = False  # whether the response is an image, a download or a part of a page
    table: str = ""  # the table with the page's rows
    needs: Permission | None = None  # the permission, if it is not the operation's


@dataclass(frozen=True)
class Table:
    """A database table and its pages in the console."""

    label: str
    # The permission needed to see a row in its scope, or a rule of ``tests/browser/access.py``: ``own``,
    # ``people`` or ``members``.
    # None: only installation operators see the table.
    seen_by: Permission | str | None = None
    row: Maker | None = None  # makes sure that a row exists. None: the console does not show the table
    title: str = ""  # the table's title on an environment's page, which counts the environment's rows in the table
    acts: Mapping[str, Act] = field(default_factory=dict)
    pages: Mapping[str, Page] = field(default_factory=dict)
    # Columns whose type has no maximum length. Lists omit large values of ``large`` columns. ``short`` states, for the
    # other columns, what limits their size, or why it does not matter.
    large: frozenset[str] = frozenset()
    short: Mapping[str, str] = field(default_factory=dict)
    in_organization: Permission | None = None  # needed instead of ``seen_by`` for rows of no project


@dataclass(frozen=True)
class Resource:
    """The operations on a resource, and its tables."""

    calls: tuple[Call, ...] = ()
    tables: tuple[Table, ...] = ()
    ids: Mapping[str, Maker] = field(default_factory=dict)  # keyed by the segment before ``{id}``, or by the parameter
    more: tuple[Maker, ...] = ()  # makers of other rows that must exist before a call


# Reasons why a column without a maximum length is short.
MACHINE = "random bytes of a fixed length, or a name from the code"
AGENT_TEXT = "agents report at most 4,000 characters"
REASON = "people write at most 2,000 characters"
ERROR = "shortened to 2,000 characters"
