"""The check that names are unique. The ingresses, egresses and stages of a pipeline share one namespace."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .diagnostics import Code, CompileReport, quote


def declare_names(named: Sequence[tuple[str, str]], report: CompileReport) -> dict[str, str]:
    """Return the pointer of each name's first use, and report every later use as a duplicate.

    ``named`` contains pairs of a name and its pointer.
    """
    pointers: dict[str, str] = {}
    for name, pointer in named:
        pointers.setdefault(name, pointer)
    for name, pointer in named:
        if pointers[name] != pointer and not report.is_full:
            report.add(
                Code.STAGE_DUPLICATE_ID,
                pointer,
                f"The name {quote(name)} is already used at {pointers[name]}; names must be unique in a pipeline.",
                f"Choose another name, such as {quote(_unused_name(name, pointers))}.",
            )
    return pointers


def _unused_name(name: str, taken: Collection[str]) -> str:
    number = 2
    while (candidate := f"{name[:57]}-{number}") in taken:
        number += 1
    return candidate
