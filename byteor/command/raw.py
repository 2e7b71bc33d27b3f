"""``byteor api``: any request, for operations without a command."""

from __future__ import annotations

import sys
from typing import Any, Final
from urllib.parse import parse_qs

import click

from byteor.command.exits import USAGE, Refusal
from byteor.command.output import ALL, json_option, note, show
from byteor.command.session import Session, with_session

MOST_DEPTH: Final = 256
MOST_VALUES: Final = 1_000_000


@click.command()
@click.argument("method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE"], case_sensitive=False))
@click.argument("path")
@click.option("-q", "--query", "pairs", multiple=True, metavar="NAME=VALUE", help="A query parameter. Can be repeated.")
@click.option("-d", "--data", help="The body, a JSON object, or - for stdin.")
@json_option(None)
@with_session
def api(
    session: Session, method: str, path: str, pairs: tuple[str, ...], data: str | None, as_json: str | None
) -> None:
    """Send a request to the API, and print the JSON response.

    In the path, {org}, {project} and {env} are replaced by the ids of the selected organization, project and
    environment.

    \b
    Examples:
      byteor api GET /api/v1/me
      byteor api GET /api/v1/orgs/{org}/projects -q limit=5
      echo '{"name": "staging"}' | byteor api POST /api/v1/orgs/{org}/projects -d -
    """
    for mark, level in (("{org}", "organization_id"), ("{project}", "project_id"), ("{env}", "environment_id")):
        if mark in path:
            path = path.replace(mark, getattr(session, level))
    if not path.startswith("/"):
        raise Refusal(f"The path must begin with a slash: {path}", USAGE)
    path, _, in_path = path.partition("?")
    query: dict[str, Any] = parse_qs(in_path, keep_blank_values=True)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Refusal(f"A query parameter must be NAME=VALUE: {pair}", USAGE)
        query.setdefault(name, []).append(value)
    from byteor.engine.strict_json import JsonLimits, MalformedJson, read_object  # noqa: PLC0415  used here only

    try:
        text = sys.stdin.read() if data == "-" else data
        fields = None if text is None else read_object(text, JsonLimits(max_depth=MOST_DEPTH, max_values=MOST_VALUES))
    except MalformedJson as error:
        raise Refusal(f"The body is invalid: line {error.line}: {error.message}", USAGE) from None
    found = session.client.request(method, path, query=query, fields=fields)
    if found is None:
        note("The response has no body.")
    else:
        show(found, as_json or ALL, "")
