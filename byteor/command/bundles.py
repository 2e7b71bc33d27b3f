"""``byteor bundles``: config bundles, which combine a version with the configuration that it runs with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from byteor.command.drafts import VERSION, find_version
from byteor.command.exits import USAGE, Refusal
from byteor.command.output import json_option, list_options, note, say, show, show_list, when
from byteor.command.session import Named, Session, find, is_id, with_session

if TYPE_CHECKING:
    from byteor.client import models as m
    from byteor.client.errors import InvalidRequest
    from byteor.command.plan_files import PlanFile

CONFIGURATION: Final = ("tuning_profile", "wait", "stage_config", "adapters", "env", "snapshot")
_MOST_VERSIONS: Final = 1000  # how many of the newest versions are searched for the names in a list


@click.group()
def bundles() -> None:
    """Create, list and copy config bundles."""


BUNDLE = Named(lambda session: (each.name for each in session.environment.list_config_bundles(limit=200)))


def find_bundle(session: Session, text: str) -> m.ConfigBundle:
    """Return the config bundle with this name, id or part of an id. Raises Refusal."""
    environment = session.environment
    return environment.get_config_bundle(
        text if is_id(text) else find(environment.list_config_bundles, text, "config bundle").id
    )


def version_names(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """Return the names of versions, such as ``quotes:3``, by id. Versions older than the newest 1,000 are left out."""
    wanted = set(ids)
    found: dict[str, str] = {}
    for number, each in enumerate(session.environment.list_versions(limit=200), 1):
        if each.id in wanted:
            found[each.id] = f"{each.name}:{each.number}"
        if len(found) == len(wanted) or number == _MOST_VERSIONS:
            break
    return found


@bundles.command("list")
@click.option("--version", "version", type=VERSION, help="Only config bundles of this version.")
@list_options("ListedConfigBundle")
@with_session
def list_bundles(session: Session, version: str | None, limit: int, as_json: str | None) -> None:
    """List the config bundles of the environment, newest first.

    \b
    Examples:
      byteor bundles list
      byteor bundles list --version quotes:3 --json name,config_hash
    """
    from itertools import islice  # noqa: PLC0415  needed by this command only

    version_id = find_version(session, version).id if version else None
    rows = list(islice(session.environment.list_config_bundles(version_id=version_id), limit + 1))
    names = version_names(session, (each.version_id for each in rows)) if rows and as_json is None else {}
    columns = {
        "name": lambda each: each.name,
        "version": lambda each: names.get(each.version_id, each.version_id),
        "known bad": lambda each: each.known_bad,
        "created": lambda each: when(each.created_at),
        "by": lambda each: each.created_by,
        "id": lambda each: each.id,
    }
    show_list(rows, as_json, columns, limit)


@bundles.command("show")
@click.argument("bundle", type=BUNDLE)
@json_option("ConfigBundle")
@with_session
def show_bundle(session: Session, bundle: str, as_json: str | None) -> None:
    """Show a config bundle and its configuration.

    Without --json, the configuration is printed in the format that `byteor bundles create -f` reads.

    \b
    Examples:
      byteor bundles show quotes-eu
      byteor bundles show quotes-eu --json env,config_hash
    """
    found = find_bundle(session, bundle)
    if as_json is not None:
        show(found, as_json, "")
        return
    import yaml  # noqa: PLC0415  slow to import

    version = session.environment.get_version(found.version_id)
    show(
        found,
        None,
        {
            "config bundle": lambda _: found.name,
            "version": lambda _: f"{version.name}:{version.number}",
            "known bad": lambda _: found.known_bad,
            "capabilities": lambda _: found.required_capabilities,
            "copied from": lambda _: found.origin,
            "created": lambda _: f"{when(found.created_at)} by {found.created_by}",
            "config hash": lambda _: found.config_hash,
            "id": lambda _: found.id,
        },
    )
    values = found.to_dict()
    configuration = {name: values[name] for name in CONFIGURATION if values.get(name)}
    say("\n" + yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True).rstrip("\n"))
    _note_warnings(found, None)


@bundles.command()
@click.argument("version", type=VERSION)
@click.option("-f", "--file", "path", help="The configuration in JSON or YAML, or - for stdin.")
@click.option(
    "--name",
    help="The name of the config bundle. Default: the name in the file, or the pipeline and number, such as quotes-3.",
)
@click.option("--tuning-profile", help="How the runtime uses the CPU cores: default, low-latency or isolated-core.")
@click.option(
    "--var", "variables", multiple=True, metavar="NAME=VALUE", help="An environment variable. Can be repeated."
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="NAME[=SECRET]",
    help="An environment variable that gets its value from a secret on the agent's host. Default of SECRET: NAME. "
    "Can be repeated.",
)  # fmt: skip
@json_option("ConfigBundle")
@with_session
def create(
    session: Session,
    version: str,
    path: str | None,
    name: str | None,
    tuning_profile: str | None,
    variables: Sequence[str],
    secrets: Sequence[str],
    as_json: str | None,
) -> None:
    """Create a config bundle from a version and a configuration.

    The file can have the fields tuning_profile, wait, stage_config, adapters, env, snapshot and name. Options override
    the file. If the configuration is invalid, nothing is created, and errors in the file are printed with line numbers.

    \b
    Examples:
      byteor bundles create quotes:3 -f config.yaml
      byteor bundles create quotes --name quotes-eu --var REGION=eu --secret DB_PASSWORD
    """
    from byteor.client.errors import InvalidRequest  # noqa: PLC0415  imported when used, so that --help is fast

    file = _read_configuration(path) if path else None
    values: dict[str, Any] = dict(file.plan) if file else {}
    options = {**_variables(variables), **_secrets(secrets)}
    if options:
        env = values.get("env", {})
        values["env"] = {**env, **options} if isinstance(env, dict) else env  # the server refuses other types
    if tuning_profile:
        values["tuning_profile"] = tuning_profile
    in_file = values.pop("name", None)
    found = find_version(session, version)
    title = name if name is not None else in_file or f"{found.name}-{found.number}"
    from_options = {f"/env/{each}" for each in options} | ({"/tuning_profile"} if tuning_profile else set())
    try:
        created = session.environment.create_config_bundle(name=title, version_id=found.id, **values)
    except InvalidRequest as error:
        raise _refusal(error, file, from_options) from None
    show(created, as_json, f"Created config bundle {created.name} of version {found.name}:{found.number}")
    _note_warnings(created, file)


def _read_configuration(path: str) -> PlanFile:
    """Read a configuration. Raises Refusal if it cannot be read or has unknown fields."""
    from byteor.command.plan_files import read_plan  # noqa: PLC0415  imports PyYAML

    file = read_plan(path, "configuration")
    for field in file.plan:
        if field not in {*CONFIGURATION, "name"}:
            known = ", ".join((*CONFIGURATION, "name"))
            raise Refusal(f"{file.name}:{file.line_of(f'/{field}')}: Unknown field: {field}. Fields: {known}.", USAGE)
    return file


def _variables(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Refusal(f"--var {each}: Write NAME=VALUE.", USAGE)
        found[name] = value
    return found


def _secrets(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given:
        name, _, secret = each.partition("=")
        if not name:
            raise Refusal(f"--secret {each}: Write NAME or NAME=SECRET.", USAGE)
        found[name] = {"secret_ref": secret or name}
    return found


def _refusal(error: InvalidRequest, file: PlanFile | None, from_options: set[str]) -> Refusal:
    """Print each error of a configuration on stderr, with its place, and return the refusal that ends the command."""
    for each in error.errors:
        pointer = str(each.get("pointer") or "")
        place = pointer or "request" if pointer in from_options else _place(pointer, file)
        note(f"{place}: error: {each.get('detail')} ({each.get('code')})")
    request = f" (request {error.request_id})" if error.request_id else ""
    return Refusal(f"{'The config bundle was not created.' if error.errors else error.detail}{request}")


def _place(pointer: str, file: PlanFile | None) -> str:
    """Return the file and line of a value. If the file does not contain its field, return its JSON Pointer.

    Returns ``request`` if there is no pointer either.
    """
    if file is not None and pointer.split("/")[1:2] and pointer.split("/")[1] in file.plan:
        return f"{file.name}:{file.line_of(pointer)}"
    return pointer or "request"


def _note_warnings(found: m.ConfigBundle, file: PlanFile | None) -> None:
    for each in found.warnings or []:
        note(f"{_place(each.pointer, file)}: warning: {each.detail} ({each.code})")


@bundles.command("copy")
@click.argument("bundle", type=BUNDLE)
@click.option("--to", "target", required=True, help="The environment to copy to, by name or id.")
@json_option("ConfigBundle")
@with_session
def copy_bundle(session: Session, bundle: str, target: str, as_json: str | None) -> None:
    """Copy a config bundle to another environment.

    Its version is copied too, unless the environment has a version of the same pipeline with the same spec. Nothing is
    deployed. Secret values are not copied: each agent reads them on its own host.

    \b
    Examples:
      byteor bundles copy quotes-eu --to prod
      byteor bundles copy quotes-eu --env staging --to prod --json id,missing_secrets
    """
    found, there = find_bundle(session, bundle), session.environment_named(target)
    before = {each.id for each in there.list_config_bundles(name=found.name, config_hash=found.config_hash)}
    copied = there.create_config_bundle(from_config_bundle_id=found.id)
    done = f"Copied config bundle {found.name} to {target}"
    show(copied, as_json, f"Unchanged: {target} already has {found.name}" if copied.id in before else done)
    if copied.missing_secrets:
        names, is_one = ", ".join(copied.missing_secrets), len(copied.missing_secrets) == 1
        what, them = ("this secret", "it") if is_one else ("these secrets", "them")
        note(f"Warning: No other config bundle in {target} uses {what}: {names}. The agents' hosts there need {them}.")
    if copied.known_bad:
        note(f"Warning: This configuration is known bad in {target}. To deploy it, run `byteor bundles clear` first.")
    _note_warnings(copied, None)


@bundles.command("clear")
@click.argument("bundle", type=BUNDLE)
@click.option("--reason", required=True, help="The reason, for the audit trail.")
@json_option("ConfigBundle")
@with_session
def clear_bundle(session: Session, bundle: str, reason: str, as_json: str | None) -> None:
    """Clear the known bad state of a configuration.

    The configuration can then be deployed to the environment again.

    \b
    Examples:
      byteor bundles clear quotes-eu --reason "The disk was full"
    """
    found = find_bundle(session, bundle)
    cleared = session.environment.clear_config_bundle(found.id, reason=reason)
    show(cleared, as_json, f"Config bundle {cleared.name} can be deployed again")
