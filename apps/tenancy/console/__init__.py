"""The console at /admin: read-only pages of every table, and the few acts that people do by hand."""

from apps.tenancy.console.acts import Act, ActContext
from apps.tenancy.console.base import Panel, ReadOnlyAdmin, Tile, VisibleRowsFilter
from apps.tenancy.console.columns import ago, link, pill, short, until, with_note
from apps.tenancy.console.live import LiveAdmin
from apps.tenancy.console.site import site

__all__ = [
    "Act",
    "ActContext",
    "LiveAdmin",
    "Panel",
    "ReadOnlyAdmin",
    "Tile",
    "VisibleRowsFilter",
    "ago",
    "link",
    "pill",
    "short",
    "site",
    "until",
    "with_note",
]
