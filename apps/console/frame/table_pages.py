"""The pages of a table that is part of another page."""

from __future__ import annotations

from dataclasses import dataclass


def page_of(text: str, total: int, size: int) -> tuple[int, int]:
    """Return the number of the page that a query parameter names, and the position of its first row, from 0.

    Without a number of at most 9 digits, the page is the first. If the number is too large, the page is the last.
    """
    pages = max(1, -(-total // size))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1
    page = min(max(1, number), pages)
    return page, (page - 1) * size


@dataclass(frozen=True, slots=True)
class TablePage[Row]:
    """A page of a table.

    ``total`` is the number of rows on all pages. ``first`` is the number of the page's first row, counted over all
    pages from 1. It is 0 if the page has no rows.
    """

    rows: list[Row]
    total: int
    first: int
    page: int

    @property
    def last(self) -> int:
        """The number of the page's last row, counted over all pages."""
        return self.first + len(self.rows) - 1

    @property
    def previous(self) -> int | None:
        """The number of the previous page; None on the first."""
        return self.page - 1 if self.page > 1 else None

    @property
    def next(self) -> int | None:
        """The number of the next page; None on the last, and on an empty page."""
        return self.page + 1 if self.rows and self.last < self.total else None
