"""The connection of a command to the server, and the resolution of names to resources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, Final, override
from urllib.parse import urlsplit

import click

from byteor.command import contexts
from byteor.command.exits import FAILED, USAGE, Refusal
from byteor.command.output import note

if TYPE_CHECKING:
    from byteor.client import ByteOr
    from byteor.client.resources import Environment, Organization, Project

NOTHING_TO_SELECT: Final = {
    "organization": "You can see no organization.",
    "project": "You can see no project in the organization. Create one, or select another organization.",
    "environment": "The project has no environment. Create one, or select another project.",
}
SHORTEST: Final = 4  # the fewest characters by which an id can be found
MOST_SEARCHED: Final = 2000  # the most rows of a list that are searched
MOST_COMPLETED: Final = 400  # the most names that completion reads, because a list can be long
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_id(text: str) -> bool:
    """Return whether the text is a complete id."""
    return _ID.fullmatch(text.lower()) is not None


def is_name(text: str) -> bool:
    """Return whether the text can be a name or an id: it is printable and not blank."""
    return text.isprintable() and text.strip() != ""


def find(listed: Callable[..., Iterable[Any]], text: str, what: str, *, has_name: bool = True) -> Any:
    """Return the row of a list with this name or id, or the only row whose id begins or ends with the text.

    Ids are searched in the first ``MOST_SEARCHED`` rows, and a part of an id needs ``SHORTEST`` characters. ``listed``
    lists the rows. If ``has_name``, it accepts a filter by ``name``. Raises Refusal if no row or more than one row
    matches.
    """
    if not is_name(text):
        raise Refusal(f"{text!r} is not the name or the id of any {what}.", USAGE)
    if has_name and not is_id(text) and (same := [row for row in listed(name=text) if row.name == text]):
        return _only(same, text, what)
    rows = list(islice(listed(), MOST_SEARCHED))
    part = text.lower()
    found = [row for row in rows if row.id.startswith(part) or row.id.endswith(part)]
    if found and len(part) >= SHORTEST:
        return _only(found, text, what)
    known = ", ".join(_title(row) for row in rows[:10])
    more = ", …" if len(rows) > 10 else ""
    raise Refusal(f"No {what} matches {text}." + (f" Available: {known}{more}." if known else ""), FAILED)


def _only(rows: list[Any], text: str, what: str) -> Any:
    if len(rows) == 1:
        return rows[0]
    several = ", ".join(_title(row) for row in rows[:10])
    raise Refusal(f"{text} matches more than one {what}: {several}. Use an id.", USAGE)


def _title(row: Any) -> str:
    return f"{row.name} ({row.id})" if isinstance(getattr(row, "name", None), str) else str(row.id)


def connect(url: str, token: str | None = None) -> ByteOr:
    """Return a client, which prints a note before each retry, except within ``on_retry``.

    Raises Refusal for an invalid URL or token.
    """
    from byteor.client import ByteOr  # noqa: PLC0415  imported with the first request, so that --help is fast
    from byteor.command.retries import note_retries  # noqa: PLC0415  imports the client

    note_retries()
    try:
        urlsplit(url).port  # noqa: B018  raises if the port or the host is invalid
        return ByteOr(url, token)
    except ValueError as error:
        raise Refusal(f"The server or the token is invalid: {error}", USAGE) from None


class Session:
    """The client of the selected context, and the organization, project and environment that the command works in."""

    def __init__(self, context: str | None, organization: str, project: str, environment: str) -> None:
        self.name, self.context, warnings = contexts.current(context)
        chosen = self.context.at(organization, project, environment)
        self._names = {each: getattr(chosen, each) for each in ("organization", "project", "environment")}
        for warning in warnings:
            note(f"Note: {warning}")

    @cached_property
    def client(self) -> ByteOr:
        """The client for the server of the selected context."""
        return connect(self.context.url, self.context.token)

    @cached_property
    def organization_id(self) -> str:
        """The id of the selected organization, or of the only one."""
        return self._chosen(self.client.list_organizations, "organization", "--org")

    @cached_property
    def organization(self) -> Organization:
        """The operations of the organization."""
        return self.client.organization(self.organization_id)

    @cached_property
    def project_id(self) -> str:
        """The id of the selected project, or of the only one."""
        return self._chosen(self.organization.list_projects, "project", "--project")

    @cached_property
    def project(self) -> Project:
        """The operations of the project."""
        return self.client.project(self.organization_id, self.project_id)

    @cached_property
    def environment_id(self) -> str:
        """The id of the selected environment, or of the only one."""
        return self._chosen(self.project.list_environments, "environment", "--env")

    @cached_property
    def environment(self) -> Environment:
        """The operations of the environment."""
        return self.client.environment(self.organization_id, self.project_id, self.environment_id)

    def environment_named(self, text: str) -> Environment:
        """Return the operations of an environment of the selected project, by name or id. Raises Refusal."""
        row = find(self.project.list_environments, text, "environment")
        return self.client.environment(self.organization_id, self.project_id, row.id)

    def _chosen(self, listed: Callable[..., Iterable[Any]], what: str, option: str) -> str:
        text = self._names[what]
        if text:
            return text if is_id(text) else str(find(listed, text, what).id)
        rows = list(islice(listed(), 11))
        if len(rows) == 1:
            return str(rows[0].id)
        known = ", ".join(row.name for row in rows[:10]) + (", …" if len(rows) > 10 else "")
        if not rows:
            raise Refusal(NOTHING_TO_SELECT[what], FAILED)
        raise Refusal(f"Select the {what} with {option} or `byteor context set {option}`: {known}.", USAGE)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "client" in vars(self):
            self.client.close()


def with_session[**P, R](command: Callable[Concatenate[Session, P], R]) -> Callable[..., R]:
    """Give a command a ``Session`` as its first argument.

    Also adds the options that select the context, organization, project and environment.
    """

    @click.option("--context", "-c", help="The context. Default: BYTEOR_CONTEXT, or else the current one.")
    @click.option("--org", type=ORGANIZATION, metavar="TEXT", help="The organization, by name or id.")
    @click.option("--project", "-p", type=PROJECT, metavar="TEXT", help="The project, by name or id.")
    @click.option("--env", "-e", type=ENVIRONMENT, metavar="TEXT", help="The environment, by name or id.")
    @wraps(command)
    def run(*args: Any, context: str | None, org: str | None, project: str | None, env: str | None, **values: Any) -> R:
        session = Session(context, org or "", project or "", env or "")
        try:
            return command(session, *args, **values)
        finally:
            session.close()

    return run


type Names = Callable[[Session], Iterable[str]]


class Named(click.ParamType[str]):
    """An argument or option that names a resource. Completion requests the names or ids from the server."""

    name = "name or id"

    def __init__(self, names: Names) -> None:
        self._names = names

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Fails if it cannot be a name or an id, such as the empty value of an unset variable."""
        if not is_name(value):
            self.fail(f"{value!r} is not a name or an id.", param, ctx)
        return value

    @override
    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Return the names that begin with the text, or an empty list if the names cannot be read."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  only while the shell completes

        given = ctx.params
        session = None
        try:
            session = Session(given.get("context"), *(given.get(each) or "" for each in ("org", "project", "env")))
            names = dict.fromkeys(islice(self._names(session), MOST_COMPLETED))  # without repetitions, in order
            return [CompletionItem(name) for name in names if name.startswith(incomplete) and name.isprintable()]
        except Exception:
            return []
        finally:
            if session is not None:
                session.close()


ORGANIZATION = Named(lambda session: (each.name for each in session.client.list_organizations(limit=200)))
PROJECT = Named(lambda session: (each.name for each in session.organization.list_projects(limit=200)))
ENVIRONMENT = Named(lambda session: (each.name for each in session.project.list_environments(limit=200)))


@contextmanager
def suppress_errors() -> Iterator[None]:
    """Ignore failed requests in the block, which only read optional details of the output."""
    from byteor.client.errors import ByteOrError  # noqa: PLC0415  only a command that runs needs it

    with suppress(ByteOrError):
        yield
