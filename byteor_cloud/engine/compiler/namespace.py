"""The one namespace that the ingresses, egresses and stages of a pipeline share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .diagnostics import Code, Report, shown


def declare(named: Sequence[tuple[str, str]], report: Report) -> dict[str, str]:
    """Give where each name stands first, of names and their places; report each that comes again."""
    places: dict[str, str] = {}
    for name, pointer in named:
        places.setdefault(name, pointer)
    for name, pointer in named:
        if places[name] != pointer and not report.full:
            report.add(
                Code.STAGE_DUPLICATE_ID,
                pointer,
                f"The name {shown(name)} is taken at {places[name]}; all names of a pipeline differ.",
                f"Write another name, such as {shown(_free(name, places))}.",
            )
    return places


def _free(name: str, taken: Collection[str]) -> str:
    number = 2
    while (free := f"{name[:57]}-{number}") in taken:
        number += 1
    return free
