"""``byteor login``, ``byteor logout`` and ``byteor context``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from byteor.command import contexts
from byteor.command.contexts import Context
from byteor.command.exits import USAGE, Refusal
from byteor.command.output import confirm, is_terminal, json_option, list_options, note, say, show, show_list, when
from byteor.command.session import NOTHING_TO_SELECT, connect, find

if TYPE_CHECKING:
    from byteor.client import ByteOr

SIGNED_IN: Final = ("context", "url", "user", "expires_at", "organization", "project", "environment")
SIGNED_OUT_FIELDS: Final = ("context", "url", "revoked")
CONTEXT: Final = (
    "name", "current", "url", "organization", "project", "environment", "organization_id", "project_id",
    "environment_id",
)  # fmt: skip
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_S: Final = 5  # RFC 8628, section 3.5
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_LONGEST_NAME: Final = 100


class _ContextName(click.ParamType[str]):
    """The name of a stored context, which the shell completes."""

    name = "context"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Return the names that begin with the text."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  only while the shell completes

        with suppress(Refusal):
            return [CompletionItem(each) for each in sorted(contexts.load().by_name) if each.startswith(incomplete)]
        return []


def _levels(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the organization, project and environment of a context."""
    for option in (
        click.option("--env", "-e", default="", help="The environment, by name or id."),
        click.option("--project", "-p", default="", help="The project, by name or id."),
        click.option("--org", default="", help="The organization, by name or id."),
    ):
        command = option(command)
    return command


_chosen_context = click.option("--context", "-c", type=_ContextName(), help=(
    "The context. Default: BYTEOR_CONTEXT, or else the current one."
))  # fmt: skip


@click.command()
@click.argument("url", required=False)
@click.option(
    "--name", help="The name of the context. Default: the host and port in URL, or the context whose server is used."
)
@click.option("--token", "reads_token", is_flag=True, help="Read a token from stdin instead of opening a browser.")
@click.option("--no-browser", is_flag=True, help="Print the URL, but do not open a browser.")
@_levels
@json_option(SIGNED_IN)
def login(
    url: str | None,
    name: str | None,
    reads_token: bool,
    no_browser: bool,
    org: str,
    project: str,
    env: str,
    as_json: str | None,
) -> None:
    """Sign in to a server.

    Without --token, prints a URL and a code. Open the URL in a browser on any machine, check the code, and allow the
    sign-in. The token is stored in a context, which becomes the current one. Default URL: the server of the context
    that BYTEOR_CONTEXT names, or else of the current one.

    \b
    Examples:
      byteor login https://byteor.example.com
      byteor login https://byteor.example.com --name prod --org acme --project quotes --env prod
      byteor login https://byteor.example.com --token < token.txt
    """
    stored = contexts.load()
    if url is None:
        chosen, before = stored.named(None)
        name, server = name or chosen, before.url
    else:
        server = _server(url)
        name = name or urlsplit(server).netloc
    before = stored.by_name.get(name, Context(server))
    if before.url != server:
        raise Refusal(f"Context {name} belongs to the server {before.url}. Use another name with --name.", USAGE)
    contexts.store(stored)  # fail before a token is created if the file cannot be written
    if urlsplit(server).scheme == "http" and urlsplit(server).hostname not in _LOOPBACK:
        note(f"Note: The connection to {server} is not encrypted.")
    token = _read_token() if reads_token else _device_token(server, opens_browser=not no_browser)
    if not reads_token:  # the token can be collected only once, so keep it even if the next request fails
        contexts.store(contexts.load().with_context(name, replace(before, token=token)))
    with connect(server, token) as client:
        caller = client.get_caller()
        found = replace(before, token=token)
        contexts.store(contexts.load().with_context(name, found))
        try:
            found = _choose(client, found, org, project, env)
        except Refusal as error:
            raise Refusal(f"Signed in, but --org, --project and --env were not applied. {error}", error.code) from None
    contexts.store(contexts.load().with_context(name, found))
    who = caller.user.email if caller.user else f"the API key {caller.credential.prefix}…"
    expires = caller.credential.expires_at
    values = {
        "context": name, "url": server, "user": who, "expires_at": expires and expires.isoformat(),
        "organization": found.organization_name or None, "project": found.project_name or None,
        "environment": found.environment_name or None,
    }  # fmt: skip
    until = f". The token expires {when(expires)}." if expires else ""
    show(values, as_json, f"Signed in to {urlsplit(server).netloc} as {who}{until}")
    note(f"Context {name}: {_place(found)}")
    for warning in contexts.current()[2]:
        note(f"Note: {warning}")


def _server(url: str) -> str:
    """Return the URL of a server as contexts store it. Raises Refusal."""
    whole = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(whole)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or parts.username is not None or parts.query or parts.fragment or not whole.isprintable():
        raise Refusal(f"{url} is not a server URL. Example: https://byteor.example.com.", USAGE)
    return whole.rstrip("/")


def _read_token() -> str:
    """Read the token from stdin. On a terminal, prompt for it without echo. Raises Refusal."""
    is_typed = sys.stdin.isatty()
    token = str(click.prompt("Token", hide_input=True, err=True) if is_typed else sys.stdin.read()).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        if is_typed:
            raise Refusal("This is not a token.", USAGE)
        raise Refusal("No valid token on stdin. Example: byteor login URL --token < token.txt", USAGE)
    return token


def _device_token(server: str, *, opens_browser: bool) -> str:
    """Sign in with the device flow (RFC 8628), and return the token. Raises Refusal and errors of the client."""
    from byteor.client.errors import ByteOrError, InvalidRequest  # noqa: PLC0415  imported for a request only
    from byteor.command.retries import is_temporary  # noqa: PLC0415  imports the client

    with connect(server) as client:
        started = client.start_device_sign_in(client_name=_machine())
        note(f"To sign in, open {started.verification_uri_complete}")
        note(f"Check that the page shows the code {started.user_code}, and allow the sign-in. Waiting …")
        if opens_browser and is_terminal() and started.verification_uri_complete.startswith(f"{server}/"):
            _open(started.verification_uri_complete)
        ends, interval = monotonic() + started.expires_in, started.interval
        while (left := ends - monotonic()) > 0:
            sleep(min(max(interval, 1), left))
            try:
                return client.finish_device_sign_in(grant_type=GRANT_TYPE, device_code=started.device_code).access_token
            except InvalidRequest as error:
                if error.code == "slow_down":
                    interval += SLOWER_S
                elif error.code != "authorization_pending":
                    raise Refusal(error.detail) from None
            except ByteOrError as error:
                if not is_temporary(error):  # otherwise the server may be restarting, and the code is still valid
                    raise
    raise Refusal("The code has expired. Run `byteor login` again.")


def _machine() -> str | None:
    """Return the name of this machine in a form that the server accepts, or None if it has no such name."""
    import socket  # noqa: PLC0415  only for signing in

    name = "".join(each for each in socket.gethostname() if each.isprintable())[:_LONGEST_NAME].strip()
    return name or None


def _open(address: str) -> None:
    """Open the address in a graphical browser, if there is one. A browser in the terminal would hide the code."""
    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        import webbrowser  # noqa: PLC0415  only for signing in

        webbrowser.open(address)


def _choose(client: ByteOr, context: Context, organization: str, project: str, environment: str) -> Context:
    """Return the context with the given levels, with the ids and names of all selected levels.

    A new level deselects the levels below it. Where a level is not selected and only one choice exists, that choice is
    selected. Raises Refusal if a given level does not exist, or if a level above it is not selected.
    """
    wanted, found = context.at(organization, project, environment), Context(context.url, context.token)
    org = _pick(
        client.list_organizations, organization, wanted.organization, "organization", "--org", project or environment
    )
    if org is None:
        return found
    found = replace(found, organization=org.id, organization_name=org.name)
    within = client.organization(org.id)
    chosen = _pick(within.list_projects, project, wanted.project, "project", "--project", environment)
    if chosen is None:
        return found
    found = replace(found, project=chosen.id, project_name=chosen.name)
    environments = client.project(org.id, chosen.id).list_environments
    last = _pick(environments, environment, wanted.environment, "environment", "--env", "")
    return replace(found, environment=last.id, environment_name=last.name) if last else found


def _pick(listed: Callable[..., Iterable[Any]], asked: str, before: str, what: str, option: str, below: str) -> Any:
    """Return the row with the name or id ``asked``, or else the row ``before``, or else the only row.

    Without such a row, returns None, or raises Refusal if a level ``below`` this one is requested. Also raises Refusal
    if the row ``asked`` does not exist.
    """
    if asked:
        return find(listed, asked, what)
    if before:
        with suppress(Refusal):
            return find(listed, before, what)
    rows: list[Any] = list(islice(listed(), 11))
    if len(rows) == 1:
        return rows[0]
    if below:
        known = ", ".join(row.name for row in rows[:10]) + (", …" if len(rows) > 10 else "")
        raise Refusal(f"Select the {what} with {option}: {known}." if known else NOTHING_TO_SELECT[what], USAGE)
    return None


def _place(context: Context) -> str:
    """Return the selected levels, such as ``acme / quotes / prod``, and how to select missing levels."""
    names = [_shown(context, each) for each in ("organization", "project", "environment")]
    chosen = " / ".join(name for name in names if name)
    missing = (
        "" if all(names) else "To complete the context, run `byteor context set --org ORG --project PROJECT --env ENV`."
    )
    return f"{chosen}. {missing}" if chosen and missing else chosen or missing


def _shown(context: Context, level: str) -> str:
    return str(getattr(context, f"{level}_name") or getattr(context, level))


@click.command()
@_chosen_context
@click.option("--all", "every", is_flag=True, help="Sign out of all contexts.")
@click.option("--local", is_flag=True, help="Remove the context without revoking its token.")
@json_option(SIGNED_OUT_FIELDS)
def logout(context: str | None, every: bool, local: bool, as_json: str | None) -> None:
    """Sign out: revoke the token of a context, and remove the context.

    If the token cannot be revoked, for example because the server does not respond, the context is kept. API keys are
    never revoked, because others may use them.

    \b
    Examples:
      byteor logout
      byteor logout --all
      byteor logout --context prod --local
    """
    stored = contexts.load()
    if every and context:
        raise Refusal("Use either --all or --context.", USAGE)
    names = sorted(stored.by_name) if every else [stored.named(context)[0]]
    done, failures = [], []
    for name in names:
        found = stored.by_name[name]
        try:
            text, revoked = ("its token was not revoked", False) if local else _revoke(name, found)
        except Refusal as error:
            failures.append(str(error))
            continue
        contexts.store(contexts.load().without(name))
        done.append({"context": name, "url": found.url, "revoked": revoked})
        (say if as_json is None else note)(f"Signed out of {name}; {text}")
    if as_json is not None and every:
        show_list(done, as_json, {}, max(len(done), 1))
    elif as_json is not None and done:
        show(done[0], as_json, "")
    if contexts.load().by_name and not contexts.load().current and not every:
        note("There is no current context now. To select one, run `byteor context use NAME`.")
    if failures:
        raise Refusal(" ".join(failures))


def _revoke(name: str, context: Context) -> tuple[str, bool]:
    """Revoke the token of a context, unless it is an API key or already invalid.

    Return a text about the token, and whether it was revoked. Raises Refusal if a request fails.
    """
    from byteor.client.errors import ByteOrError, Conflict, NotFound, Unauthorized  # noqa: PLC0415  imported for a request only

    try:
        with connect(context.url, context.token) as client:
            credential = client.get_caller().credential
            if credential.family != "usr":
                return "the API key stays valid", False
            client.revoke_user_token(credential.id)
    except (Conflict, NotFound, Unauthorized):
        return "its token was already invalid", False
    except ByteOrError as error:
        raise Refusal(
            f"The token of context {name} was not revoked: {str(error).rstrip('.')}. Try again, or remove the context "
            f"with `byteor logout --context {name} --local`."
        ) from None
    return "its token is revoked", True


@click.group()
def context() -> None:
    """Manage contexts: the server, organization, project and environment that commands use."""


def _row(name: str, found: Context, current: str) -> dict[str, Any]:
    """Return the fields of a context that are shown, which do not include the token."""
    levels = ("organization", "project", "environment")
    return {
        "name": name,
        "current": name == current,
        "url": found.url,
        **{each: _shown(found, each) or None for each in levels},
        **{f"{each}_id": getattr(found, each) or None for each in levels},
    }


@context.command("list")
@list_options(CONTEXT)
def list_contexts(limit: int, as_json: str | None) -> None:
    """List the stored contexts. The current one is marked with an asterisk.

    \b
    Examples:
      byteor context list
      byteor context list --json name,url
    """
    stored = contexts.load()
    columns: dict[str, Callable[[Any], Any]] = {
        "name": lambda each: f"{each['name']} *" if each["current"] else each["name"],
        "server": lambda each: each["url"],
        "organization": lambda each: each["organization"],
        "project": lambda each: each["project"],
        "environment": lambda each: each["environment"],
    }
    rows = [_row(name, each, stored.current) for name, each in sorted(stored.by_name.items())]
    show_list(rows, as_json, columns, limit)


@context.command("show")
@click.argument("name", type=_ContextName(), required=False)
@json_option(CONTEXT)
def show_context(name: str | None, as_json: str | None) -> None:
    """Show a context. Default: the one that BYTEOR_CONTEXT names, or else the current one.

    \b
    Examples:
      byteor context show
      byteor context show prod --json url
    """
    stored = contexts.load()
    chosen, found = stored.named(name)
    columns: dict[str, Callable[[Any], Any]] = {
        "name": lambda each: each["name"],
        "server": lambda each: each["url"],
        "organization": lambda each: each["organization"],
        "project": lambda each: each["project"],
        "environment": lambda each: each["environment"],
    }
    show(_row(chosen, found, stored.current), as_json, columns)
    if name is None:
        with suppress(Refusal):
            for warning in contexts.current()[2]:
                note(f"Note: {warning}")


@context.command("use")
@click.argument("name", type=_ContextName())
@json_option(CONTEXT)
def use_context(name: str, as_json: str | None) -> None:
    """Switch to a context.

    \b
    Examples:
      byteor context use prod
    """
    stored = contexts.load()
    chosen, found = stored.named(name)
    contexts.store(stored.with_context(chosen, found))
    show(_row(chosen, found, chosen), as_json, f"Switched to context {chosen}: {_place(found)}")
    if (os.environ.get(contexts.NAME) or chosen) != chosen:
        note(f"Note: {contexts.NAME} selects another context in this shell.")


@context.command("set")
@_chosen_context
@_levels
@json_option(CONTEXT)
def set_context(context: str | None, org: str, project: str, env: str, as_json: str | None) -> None:
    """Select the organization, project or environment of a context.

    If an organization has only one project, or a project only one environment, it is selected automatically.

    \b
    Examples:
      byteor context set --env prod
      byteor context set --context prod --org acme --project quotes --env prod
    """
    if not (org or project or env):
        raise Refusal("Use at least one of --org, --project and --env.", USAGE)
    stored = contexts.load()
    name, before = stored.named(context)
    with connect(before.url, before.token) as client:
        found = _choose(client, before, org, project, env)
    changed = contexts.load()
    contexts.store(replace(changed, by_name={**changed.by_name, name: found}))
    show(_row(name, found, changed.current), as_json, f"Context {name}: {_place(found)}")


@context.command("remove")
@click.argument("name", type=_ContextName())
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option(CONTEXT)
def remove_context(name: str, yes: bool, as_json: str | None) -> None:
    """Remove a context without revoking its token. To revoke the token too, use `byteor logout`.

    \b
    Examples:
      byteor context remove staging
      byteor context remove staging --yes
    """
    stored = contexts.load()
    chosen, found = stored.named(name)
    confirm(f"Remove context {chosen}? Its token is not revoked.", yes=yes)
    contexts.store(contexts.load().without(chosen))
    show(_row(chosen, found, stored.current), as_json, f"Removed context {chosen}")
