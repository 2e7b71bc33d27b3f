"""The console at /admin: read-only pages of every table, and the few acts that people do by hand."""

from apps.tenancy.console.acts import Act, ActContext
from apps.tenancy.console.base import Panel, ReadOnlyAdmin, Tile
from apps.tenancy.console.columns import relative_time, row_link, short_id, state_pill, time_left, with_note
from apps.tenancy.console.large import VisibleRowsFilter
from apps.tenancy.console.live import LiveAdmin
from apps.tenancy.console.search import FoundBy
from apps.tenancy.console.site import site

__all__ = [
    "Act",
    "ActContext",
    "FoundBy",
    "LiveAdmin",
    "Panel",
    "ReadOnlyAdmin",
    "Tile",
    "VisibleRowsFilter",
    "relative_time",
    "row_link",
    "short_id",
    "site",
    "state_pill",
    "time_left",
    "with_note",
]
