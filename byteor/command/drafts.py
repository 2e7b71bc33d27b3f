"""``byteor drafts`` and ``byteor versions``: drafts of plans, and the versions that drafts are promoted to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from byteor.command.exits import DONE, FAILED, USAGE, Refusal
from byteor.command.output import confirm, json_option, list_options, note, show, show_list, when
from byteor.command.session import Named, Session, find, is_id, is_name, with_session

if TYPE_CHECKING:
    from byteor.client import models as m
    from byteor.command.plan_files import PlanFile


@click.group()
def drafts() -> None:
    """Create, preview and promote drafts."""


@click.group()
def versions() -> None:
    """List, show, compare and copy versions."""


DRAFT = Named(lambda session: (draft.name for draft in session.environment.list_drafts(limit=200)))
VERSION = Named(lambda session: (f"{each.name}:{each.number}" for each in session.environment.list_versions(limit=200)))


def find_draft(session: Session, text: str) -> m.Draft:
    """Return the draft with this name, id or part of an id. Raises Refusal."""
    environment = session.environment
    return environment.get_draft(text if is_id(text) else find(environment.list_drafts, text, "draft").id)


def find_version(session: Session, text: str) -> m.Version:
    """Return a version by ``NAME:NUMBER``, ``NAME`` (its newest version), id or part of an id. Raises Refusal."""
    environment = session.environment
    name, _, number = text.partition(":")
    if is_id(text):
        return environment.get_version(text)
    if not is_name(name):
        raise Refusal(f"There is no version {text!r}.", USAGE)
    same = (each for each in environment.list_versions(name=name) if each.name == name)
    for each in same:  # newest first
        if number in {"", str(each.number)}:
            return environment.get_version(each.id)
    if number:
        raise Refusal(f"No version matches {text}.", FAILED)
    return environment.get_version(find(environment.list_versions, text, "version", has_name=False).id)


@drafts.command("list")
@list_options("ListedDraft")
@with_session
def list_drafts(session: Session, limit: int, as_json: str | None) -> None:
    """List the drafts of the environment, newest first.

    \b
    Examples:
      byteor drafts list
      byteor drafts list --env staging --json name,revision
    """
    columns = {
        "name": lambda each: each.name,
        "revision": lambda each: each.revision,
        "compiles": lambda each: each.spec_hash is not None,
        "changed": lambda each: when(each.updated_at),
        "by": lambda each: each.updated_by,
        "id": lambda each: each.id,
    }
    show_list(session.environment.list_drafts(), as_json, columns, limit)


@drafts.command("show")
@click.argument("draft", type=DRAFT)
@json_option("Draft")
@with_session
def show_draft(session: Session, draft: str, as_json: str | None) -> None:
    """Show a draft with its diagnostics. With --json, also its plan.

    \b
    Examples:
      byteor drafts show quotes
      byteor drafts show quotes --json plan
    """
    found = find_draft(session, draft)
    show(found, as_json, _about(found))
    if as_json is None:
        say_diagnostics(found.diagnostics, None)


def _about(found: m.Draft) -> dict[str, Any]:
    return {
        "draft": lambda _: found.name,
        "revision": lambda _: found.revision,
        "compiles": lambda _: found.spec_hash is not None,
        "spec hash": lambda _: found.spec_hash,
        "changed": lambda _: f"{when(found.updated_at)} by {found.updated_by}",
        "id": lambda _: found.id,
    }


@drafts.command()
@click.option("-f", "--file", "path", required=True, help="The plan in JSON or YAML, or - for stdin.")
@click.option("--name", help="The name of the draft. Default: the name in the plan.")
@json_option("Draft")
@with_session
def apply(session: Session, path: str, name: str | None, as_json: str | None) -> int:
    """Create or update a draft from a plan file.

    A plan that does not compile is saved too. Its diagnostics are printed with the lines of the file, and the exit code
    is 1. If the draft already has this plan, nothing changes.

    \b
    Examples:
      byteor drafts apply -f quotes.yaml
      cat quotes.json | byteor drafts apply -f - --name quotes-test
    """
    from byteor.command.plan_files import read_plan  # noqa: PLC0415  imports PyYAML

    file = read_plan(path)
    title = file.plan.get("name") if name is None else name
    if not isinstance(title, str) or not title:
        raise Refusal(f"{file.name}:1: The draft has no name. Add a name to the plan, or use --name.")
    environment = session.environment
    old = next((each for each in environment.list_drafts(name=title) if each.name == title), None)
    if old is None:
        saved, done = environment.create_draft(name=title, plan=file.plan), "Created"
    else:
        before = environment.get_draft(old.id)
        saved = environment.update_draft(old.id, plan=file.plan, if_match=before.etag)
        done = "Unchanged:" if saved.revision == before.revision else "Updated"
    show(saved, as_json, f"{done} draft {saved.name}, revision {saved.revision}")
    return say_diagnostics(saved.diagnostics, file)


@drafts.command()
@click.argument("draft", type=DRAFT)
@click.option("-f", "--file", "path", help="The file with the plan, or - for stdin. Default: the saved plan.")
@click.option("--target", help="The target: single_ring or lane_graph. Default: the target of the plan.")
@json_option("Preview")
@with_session
def preview(session: Session, draft: str, path: str | None, target: str | None, as_json: str | None) -> int:
    """Compile a draft and print its spec, without saving anything.

    The exit code is 1 if the plan does not compile.

    \b
    Examples:
      byteor drafts preview quotes
      byteor drafts preview quotes -f quotes.yaml --json spec_hash,diagnostics
    """
    from byteor.command.plan_files import read_plan  # noqa: PLC0415  imports PyYAML

    file = read_plan(path) if path else None
    found = session.environment.preview_draft(
        find_draft(session, draft).id, plan=file.plan if file else None, target=target
    )
    show(
        found,
        as_json,
        f"{found.spec_kv or ''}# spec hash: {found.spec_hash}" if found.ok else "The plan does not compile.",
    )
    return say_diagnostics(found.diagnostics, file)


@drafts.command("diff")
@click.argument("draft", type=DRAFT)
@click.argument("version", type=VERSION, required=False)
@json_option("Diff")
@with_session
def diff_draft(session: Session, draft: str, version: str | None, as_json: str | None) -> None:
    """Compare a draft with a version. Default: the newest version of its pipeline.

    \b
    Examples:
      byteor drafts diff quotes
      byteor drafts diff quotes quotes:3
    """
    found = find_draft(session, draft)
    if version is None and not (version := str(found.plan.get("name", ""))):
        raise Refusal("The draft's plan has no name, so it does not compile and cannot be compared.", FAILED)
    against = find_version(session, version)
    _show_diff(session.environment.diff_draft(found.id, against=against.id), as_json)


@drafts.command()
@click.argument("draft", type=DRAFT)
@json_option("Version")
@with_session
def promote(session: Session, draft: str, as_json: str | None) -> None:
    """Promote a draft to an immutable version.

    If the draft's last version has the same plan and compiler version, no other version is created.

    \b
    Examples:
      byteor drafts promote quotes
      byteor drafts promote quotes --json id
    """
    found = find_draft(session, draft)
    version = session.environment.promote_draft(found.id, expected_revision=found.revision)
    show(
        version,
        as_json,
        f"Draft {found.name}, revision {found.revision}, is now version {version.name}:{version.number}",
    )


@drafts.command("delete")
@click.argument("draft", type=DRAFT)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option("Draft")
@with_session
def delete_draft(session: Session, draft: str, yes: bool, as_json: str | None) -> None:
    """Delete a draft. Its versions are kept.

    \b
    Examples:
      byteor drafts delete quotes-test --yes
    """
    found = find_draft(session, draft)
    confirm(f"Delete draft {found.name}?", yes=yes)
    session.environment.delete_draft(found.id, if_match=found.etag)
    show(found, as_json, f"Deleted draft {found.name}")


@versions.command("list")
@click.option("--name", help="Only versions of this pipeline.")
@list_options("ListedVersion")
@with_session
def list_versions(session: Session, name: str | None, limit: int, as_json: str | None) -> None:
    """List the versions of the environment, newest first.

    \b
    Examples:
      byteor versions list
      byteor versions list --name quotes --limit 5
    """
    columns = {
        "version": lambda each: f"{each.name}:{each.number}",
        "created": lambda each: when(each.created_at),
        "by": lambda each: each.created_by,
        "spec hash": lambda each: each.spec_hash,
        "id": lambda each: each.id,
    }
    found: Iterable[Any] = session.environment.list_versions(name=name)
    show_list(found if name is None else (each for each in found if each.name == name), as_json, columns, limit)


@versions.command("show")
@click.argument("version", type=VERSION)
@json_option("Version")
@with_session
def show_version(session: Session, version: str, as_json: str | None) -> None:
    """Print the spec of a version. With --json, also its plan.

    \b
    Examples:
      byteor versions show quotes:3
      byteor versions show quotes --json plan
    """
    found = find_version(session, version)
    show(found, as_json, session.environment.get_version_spec(found.id).rstrip("\n"))


@versions.command("diff")
@click.argument("old", type=VERSION)
@click.argument("new", type=VERSION)
@json_option("Diff")
@with_session
def diff_versions(session: Session, old: str, new: str, as_json: str | None) -> None:
    """Compare two versions.

    \b
    Examples:
      byteor versions diff quotes:2 quotes:3
    """
    before, after = find_version(session, old), find_version(session, new)
    _show_diff(session.environment.diff_versions(after.id, against=before.id), as_json)


@versions.command("copy")
@click.argument("version", type=VERSION)
@click.option("--to", "target", required=True, help="The environment to copy to, by name or id.")
@json_option("Version")
@with_session
def copy_version(session: Session, version: str, target: str, as_json: str | None) -> None:
    """Copy a version to another environment of the project.

    If the newest version of the pipeline in that environment is already a copy of this version, no other copy is
    created.

    \b
    Examples:
      byteor versions copy quotes:3 --to prod
    """
    found = find_version(session, version)
    copied = session.environment_named(target).copy_version(from_version_id=found.id)
    show(copied, as_json, f"Version {found.name}:{found.number} is now in {target} as {copied.name}:{copied.number}")


def say_diagnostics(found: Iterable[m.Diagnostic], file: PlanFile | None) -> int:
    """Print the compiler's findings on stderr. Return 1 if any is an error, else 0.

    Each finding is printed with its line in the file. Without a file, it is printed with its JSON Pointer.
    """
    code = DONE
    for each in found:
        place = f"{file.name}:{file.line_of(each.pointer)}" if file else each.pointer or "plan"
        note(f"{place}: {each.severity}: {each.message}" + (f" {each.hint}" if each.hint else "") + f" ({each.code})")
        code = FAILED if each.severity == "error" else code
    return code


def _show_diff(found: m.Diff, as_json: str | None) -> None:
    show(found, as_json, found.unified.rstrip("\n") or "No differences.")
    if found.truncated:
        note("The diff is too long and was truncated.")
