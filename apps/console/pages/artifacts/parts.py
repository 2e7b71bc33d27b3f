"""Parts of pages that show captured records: links with a query, values of query parameters, and payloads."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join

from apps.console.frame.columns import page_url, text_link
from apps.console.pages.artifacts.wording import HEX_WIDTH, Runs, keep_digits
from byteor.engine.replay.member_rows import json_text

FOUND = "found"  # the HTML id of the panel with a trace or a comparison
_SHOWN = 300  # characters of a payload that are shown


def query_link(row: Any, text: object, *, at: str = FOUND, **query: object) -> str:
    """Return a link to the row's page with a query, which scrolls to the panel with the id ``at``."""
    return text_link(page_url(type(row), "change", row.pk, query=query, fragment=at), text)


def number(request: HttpRequest, name: str) -> int | None:
    """Return a query parameter as a whole number; None if it is missing or invalid."""
    text = request.GET.get(name, "").strip().replace(",", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**64 else None


def identifier(request: HttpRequest, name: str) -> UUID | None:
    """Return a query parameter as an id; None if it is missing or invalid."""
    try:
        return UUID(request.GET.get(name, ""))
    except ValueError:
        return None


def moment(request: HttpRequest, name: str) -> datetime | None:
    """Return a query parameter as a time; None if missing or invalid. A value without a time zone is read as UTC."""
    try:
        found = parse_datetime(request.GET.get(name, "").strip())
        return found and (found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def payload_text(shown: dict[str, Any]) -> str:
    """Return the start of a payload as HTML; "-" if there is no payload."""
    if shown["payload_base64"] is None and shown["json"] is None:
        return "-"
    if shown["json"] is None:
        text = text_of(b64decode(shown["payload_base64"])[: _SHOWN + 1])
    elif shown["payload_base64"] is None:
        text = json_text(shown["json"])
    else:
        text = json_text(keep_digits(b64decode(shown["payload_base64"])))
    return code(text)


def code(text: str, most: int = _SHOWN) -> str:
    """Return the start of a captured text in an HTML ``<code>`` element."""
    return format_html('<code class="payload">{}</code>', text if len(text) <= most else f"{text[:most]}…")


def text_of(payload: bytes) -> str:
    """Return bytes as text, or "(nothing)". Bytes other than printable ASCII become \\x and two hexadecimal digits."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in payload) or "(nothing)"


def marked(runs: Runs, separator: str = "") -> str:
    """Return the pieces of a line as HTML. Pieces that differ are marked."""
    pieces = [format_html("<mark>{}</mark>", text) if differs else text for text, differs in runs]
    return format_html_join(separator, "{}", ((piece,) for piece in pieces))


def json_dump(lines: list[Runs]) -> str:
    """Return lines of JSON as HTML for a ``<pre>`` element. Pieces that differ are marked."""
    return format_html_join("\n", "{}", ((marked(line),) for line in lines))


def hex_dump(rows: list[tuple[str, Runs, Runs]]) -> str:
    """Return the rows of ``hex_rows`` as HTML for a ``<pre>`` element, in columns. Pieces that differ are marked."""
    lines = []
    for position, as_hex, as_text in rows:
        width = sum(len(text) + 1 for text, _ in as_hex)
        gap = " " * (3 * HEX_WIDTH - width + 1)
        lines.append((position, marked(as_hex, " "), gap, marked(as_text)))
    return format_html_join("\n", "<i>{}</i>  {}{} {}", lines)
