"""The output of commands: tables and sentences for people, JSON with ``--json``."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from typing import Any, Final

import click

from byteor.command.exits import FAILED, USAGE, Refusal

type Command = Callable[..., Any]
type Columns = Mapping[str, Callable[[Any], Any]]
ALL: Final = "*"
SHORT_ID: Final = 8  # how many of its last characters remain of a shortened id
DEFAULT_LIMIT: Final = 100
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HASH = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
_NUMBER = re.compile(r"[0-9][0-9,.]*(?: ?(?:%|[KMGTP]?i?B))?|unlimited")


def json_option(shape: str | Sequence[str] | None) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--json``, as the argument ``as_json``: ``*``, the chosen fields, or None.

    ``shape`` describes the output: the name of a client model, or the field names, or None if the fields are not known
    in advance. Unknown fields are refused before the command does anything.
    """

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value in (None, ALL) or shape is None:
            return value
        known = _fields(shape) if isinstance(shape, str) else shape
        if unknown := [each for each in _names(value) if each not in known]:
            raise click.BadParameter(f"Unknown field: {', '.join(unknown)}. Fields: {', '.join(known)}.")
        return value

    return click.option(
        "--json", "as_json", is_flag=False, flag_value=ALL, default=None, metavar="[FIELDS]", callback=check,
        help="Print JSON, optionally with only these fields, such as id,name. Must follow the arguments.",
    )  # fmt: skip


def _fields(model: str) -> list[str]:
    models, structs = import_module("byteor.client.models"), import_module("msgspec.structs")  # slow to import
    return [each.encode_name for each in structs.fields(getattr(models, model))]


def list_options(shape: str | Sequence[str]) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--limit`` and ``--json`` to a command that lists rows of this shape."""
    limit = click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=DEFAULT_LIMIT,
        show_default=True,
        help="The maximum number of rows.",
    )
    return lambda command: json_option(shape)(limit(command))


def show_list(rows: Iterable[Any], as_json: str | None, columns: Columns, limit: int) -> None:
    """Print at most ``limit`` rows as a table or as a JSON list.

    Print a note on stderr if there are more rows, or if the table would be empty.
    """
    found = list(islice(rows, limit + 1))
    if as_json is not None:
        _print_json([chosen(each, as_json) for each in found[:limit]])
    elif found:
        _table(list(columns), [[text_of(value(each)) for value in columns.values()] for each in found[:limit]])
    else:
        note("No results.")
    if len(found) > limit:
        note(f"Results are limited to {limit:,}. Use --limit to show more.")


def show(found: Any, as_json: str | None, text: str | Columns) -> None:
    """Print a resource or JSON value: as JSON, as the text, or with one line for each column."""
    if as_json is not None:
        _print_json(chosen(found, as_json))
    elif isinstance(text, str):
        say(text)
    else:
        values = {name: text_of(value(found)) for name, value in text.items()}
        width = max(map(len, values)) + 2
        for name, value in values.items():
            title = "ID" if name == "id" else name[0].upper() + name[1:]
            say(f"{title}:".ljust(width) + value)


def say(text: str) -> None:
    """Print lines to stdout. Control characters, which texts of the server may contain, are replaced."""
    click.echo("\n".join(map(plain, text.split("\n"))))


def note(text: str) -> None:
    """Print a line to stderr, so that programs that read stdout are not affected."""
    click.echo(plain(text), err=True)


def show_line(found: Any, as_json: str | None, text: str) -> None:
    """Print one resource of a stream, as a line of JSON or as the text."""
    if as_json is None:
        say(text)
    else:
        _print_json(chosen(found, as_json), indent=None)


def confirm(question: str, *, yes: bool) -> None:
    """Prompt for confirmation, unless ``yes``. Raises Refusal if the answer is no, or without a terminal."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refusal("Cannot prompt for confirmation without a terminal. Use --yes to confirm.", USAGE)
    if not click.confirm(plain(question), err=True):
        raise Refusal("Canceled. Nothing was changed.", FAILED)


def is_terminal() -> bool:
    """Return whether stdout is a terminal that supports styles and bars."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def when(moment: datetime | None) -> str:
    """Return a relative time, such as ``3 min ago``; the date and time if it is a day or more away; ``-`` for None."""
    if moment is None:
        return "-"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if abs(seconds) >= 86_400:
        return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    size = abs(seconds)
    if size < 1:
        return "now"
    amount = f"{size:.0f} s" if size < 90 else f"{size / 60:.0f} min" if size < 5400 else f"{size / 3600:.0f} h"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


def size_text(size: int | None) -> str:
    """Return a number of bytes in a readable unit, such as ``1.5 GiB``; ``-`` for None."""
    if size is None or size < 1024:
        return "-" if size is None else f"{size} B"
    exponent = min((size.bit_length() - 1) // 10, 5)
    return f"{size / (1 << 10 * exponent):,.1f} {'KMGTP'[exponent - 1]}iB"


def short_id(text: str) -> str:
    """Shorten an id to its last characters if stdout is a terminal. Return other texts unchanged."""
    return text[-SHORT_ID:] if is_terminal() and _ID.fullmatch(text) else text


def chosen(value: Any, fields: str) -> Any:
    """Return a resource as JSON values, with only these fields, or all fields for ``*``. Missing fields are null.

    A value that is not an object is returned whole.
    """
    whole = value.to_dict() if hasattr(value, "to_dict") else value
    if fields == ALL or not isinstance(whole, dict):
        return whole
    return {name: whole.get(name) for name in _names(fields)}


def _names(fields: str) -> list[str]:
    return [each.strip() for each in fields.split(",")]


def text_of(value: Any) -> str:
    """Return a value as text for a table cell."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return plain(str(value))


def plain(line: str) -> str:
    """Return the line with its unprintable characters replaced."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)


def _print_json(value: Any, indent: int | None = 2) -> None:
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    click.echo(json.dumps(value, ensure_ascii=not is_unicode, indent=indent, default=str))


def _cells(text: str) -> int:
    """Return the width of the text in terminal columns: two for wide characters, none for combining characters."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width  # noqa: PLC0415  for such texts only

    return sum(0 if category(each) in {"Mn", "Me"} else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. On a terminal, fit it to the width, and shorten ids and, if it is too wide, hashes."""
    titles = [head.upper() for head in heads]
    is_number = [_are_numbers(column) for column in zip(*rows, strict=True)]
    if not is_terminal():
        widths = [max(map(_cells, column)) for column in zip(titles, *rows, strict=True)]
        for row in [titles, *rows]:
            padded = [
                " " * (width - _cells(cell)) + cell if right else cell + " " * (width - _cells(cell))
                for cell, width, right in zip(row, widths, is_number, strict=True)
            ]
            click.echo("  ".join(padded).rstrip())
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console, table = Console(highlight=False), Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows = [
        [cell[-SHORT_ID:] if title == "ID" else short_id(cell) for title, cell in zip(titles, row, strict=True)]
        for row in rows
    ]
    gaps = 2 * (len(titles) - 1)
    widths = [max(map(_cells, column)) for column in zip(titles, *rows, strict=True)]
    is_wide = sum(widths) + gaps > console.width
    if is_wide:
        rows = [[_HASH.sub(r"\1…", cell) for cell in row] for row in rows]
        widths = [max(map(_cells, column)) for column in zip(titles, *rows, strict=True)]
        is_wide = sum(widths) + gaps > console.width
    for at, title in enumerate(titles):
        # If the rows do not fit, the first column and ids get a fixed width, and the other columns are folded.
        width = widths[at] if title == "ID" else min(widths[at], console.width // 3) if at == 0 else None
        justify: Any = "right" if is_number[at] else "left"
        table.add_column(title, width=width if is_wide else None, overflow="fold", justify=justify)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _are_numbers(column: Sequence[str]) -> bool:
    """Return whether the cells contain values, all of which are numbers, perhaps with a unit, or ``unlimited``."""
    known = [cell for cell in column if cell != "-"]
    return bool(known) and all(map(_NUMBER.fullmatch, known))
