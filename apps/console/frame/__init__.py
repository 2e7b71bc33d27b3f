"""Parts of the console's pages: read-only tables, acts that change or create rows, and functions that format values."""

from apps.console.frame.acts import Act, ActContext
from apps.console.frame.base import ActionPage, FoundBy, ReadOnlyAdmin
from apps.console.frame.columns import relative_time, row_link, short_id, state_pill, time_left, with_note
from apps.console.frame.large import VisibleRowsFilter
from apps.console.frame.live import LiveAdmin
from apps.console.frame.site import site

__all__ = [
    "Act",
    "ActContext",
    "ActionPage",
    "FoundBy",
    "LiveAdmin",
    "ReadOnlyAdmin",
    "VisibleRowsFilter",
    "relative_time",
    "row_link",
    "short_id",
    "site",
    "state_pill",
    "time_left",
    "with_note",
]
