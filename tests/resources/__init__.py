"""What the tests know about each resource: a module for each, which ``tests/described.py`` finds by itself.

A module describes the operations, the tables and the pages of the console, and how a row is made. The laws read nothing
else, and fail for an operation, a table, an act or a page without a description. Who may do what is written down from
the contract, and never read from the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission
from tests.permissions import NoRole
from tests.worlds import World

O = "/api/v1/orgs/{org_id}"  # noqa: E741  reads as the first part of a path
P = O + "/projects/{project_id}"
E = P + "/environments/{env_id}"
A = "/api/v1/agents/{id}"


class Place:
    """An environment, and the rows that were made for it.

    A maker is a function that makes a row in a place. It gets the rows that it needs by their makers.
    """

    def __init__(self, world: World, environment: Environment, suffix: str = "1") -> None:
        self.world, self.environment, self.suffix = world, environment, suffix
        self._made: dict[Callable[[Any], Any], Any] = {}

    def get[Made](self, make: Callable[[Place], Made]) -> Made:
        """Return what ``make`` returned when it was first asked for in this place."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Made, self._made[make])

    def name(self, kind: str) -> str:
        """Return a name that no row of another place has."""
        return f"{self.world.name}-{kind}-{self.suffix}"


type Maker = Callable[[Place], Any]


def _nothing(place: Place) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Further:
    """What an operation needs in addition, in prod, if the body asks for more."""

    needs: Permission
    body: Callable[[Place], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """An operation, who may call it, and a valid call.

    The body is the example of the OpenAPI document with other ``values`` for some of its members, such as ids, unless
    ``body`` makes one. ``on`` makes a row on which the call succeeds, if it does not succeed on the row of ``ids``.
    """

    id: str  # the ``operationId``
    method: str
    path: str
    needs: Permission | NoRole
    status: int = 200
    values: Callable[[Place], dict[str, Any]] = _nothing
    body: Maker | None = None
    has_body: bool = True  # unless the method is GET or DELETE
    on: Maker | None = None
    query: Callable[[Place], str] = lambda place: ""
    on_prod: Permission | None = None  # needed in addition in an environment with the posture prod
    further: Mapping[str, Further] = field(default_factory=dict)  # by what the body asks for
    scope: str = ""  # that the key of an agent needs
    null: frozenset[str] = frozenset()  # fields that are null in this list if their values are large
    is_free: bool = False  # whether the large fields of this list may contain anything


@dataclass(frozen=True)
class Act:
    """The permission that an act of the console needs where its row belongs, and a valid form.

    An act that does what an ``operation`` does needs what the operation needs, and is possible on the same row.
    Without operation and permission, whoever sees the row may perform it. ``on`` is as in ``Call``.
    """

    operation: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    needs: Permission | None = None
    on_prod: Permission | None = None
    in_organization: Permission | None = None  # needed in addition on a row of an organization itself
    on: Maker | None = None
    only_self: bool = False
    only_operators: bool = False  # of the installation
    on_page: bool = True  # whether the row's page offers the act


@dataclass(frozen=True)
class Page:
    """A page that the admin site does not have by itself: the operation that it is for, and its methods."""

    operation: str
    methods: tuple[str, ...] = ("GET",)
    query: str = ""
    of_row: bool = True  # or the permission is needed anywhere
    is_file: bool = False  # a picture or a download, and no page of HTML
    table: str = ""  # with the page's rows
    needs: Permission | None = None


@dataclass(frozen=True)
class Table:
    """A table of the database, and what the console shows of it."""

    label: str
    seen_by: Permission | str | None = None  # where the row belongs. None: only by installation operators
    row: Maker | None = None  # sees to it that there is a row. None: the console does not have the table
    title: str = ""  # on an environment's page, with the number of its rows
    acts: Mapping[str, Act] = field(default_factory=dict)
    pages: Mapping[str, Page] = field(default_factory=dict)
    # Columns of JSON or text: no list returns the large ones unchanged. The short ones, with what bounds them.
    large: frozenset[str] = frozenset()
    short: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Resource:
    """The operations on rows of a kind, and their tables."""

    calls: tuple[Call, ...] = ()
    tables: tuple[Table, ...] = ()
    ids: Mapping[str, Maker] = field(default_factory=dict)  # rows, by the segment before ``{id}`` or by the parameter
    more: tuple[Maker, ...] = ()  # further rows that must be there before a call


# Why a column of a type without a length is short.
MACHINE = "random bytes of a fixed length, or a name that the code fixes"
AGENT_TEXT = "agents report at most 4,000 characters"
REASON = "people write at most 2,000 characters"
ERROR = "shortened to 2,000 characters"
