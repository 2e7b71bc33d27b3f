"""``byteor fixtures`` and ``byteor regress``: the regression tests of pipelines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from byteor.command.artifacts import golden_result, member_id, moment
from byteor.command.bundles import BUNDLE, find_bundle
from byteor.command.drafts import DRAFT, VERSION, find_draft, find_version
from byteor.command.exits import DONE, FAILED, PENDING, USAGE, Refusal
from byteor.command.output import confirm, json_option, list_options, note, say, show, show_list, when
from byteor.command.payloads import payload_text
from byteor.command.replaying import ARTIFACT, REPLAY, find_artifact, find_replay
from byteor.command.session import SHORTEST, Named, Session, find, is_id, with_session
from byteor.command.waiting import wait_for, waiting_options
from byteor.engine.counted import count_of

if TYPE_CHECKING:
    from byteor.client import models as m

MOST_SHOWN: Final = 20  # the most rows in the table of groups, and in that of failed, unstable or untested results
MOST_EXAMPLES: Final = 5  # the most groups whose examples are printed
_SHORT: Final = 12  # characters of the id of a group
FIXTURE = Named(lambda session: (fixture.name for fixture in session.environment.list_fixtures(limit=200)))


@click.group()
def fixtures() -> None:
    """Manage fixtures, the regression tests of pipelines."""


def find_fixture(session: Session, text: str) -> m.Fixture:
    """Return the fixture with this name, id or part of an id, with its ETag. Raises Refusal."""
    environment = session.environment
    return environment.get_fixture(text if is_id(text) else find(environment.list_fixtures, text, "fixture").id)


@fixtures.command("list")
@click.option("--pipeline", help="Only fixtures of this pipeline.")
@click.option("--name", help="Only fixtures whose names contain this text.")
@click.option("--owner", help="Only fixtures of the person with this e-mail address.")
@click.option("--artifact", type=ARTIFACT, help="Only fixtures that replay this artifact.")
@click.option("--expired/--live", default=None, help="Only fixtures that have expired, or only those that have not.")
@list_options("Fixture")
@with_session
def list_fixtures(
    session: Session,
    pipeline: str | None,
    name: str | None,
    owner: str | None,
    artifact: str | None,
    expired: bool | None,
    limit: int,
    as_json: str | None,
) -> None:
    """List the fixtures of the environment, newest first.

    \b
    Examples:
      byteor fixtures list --pipeline quotes
      byteor fixtures list --expired --json id,name
    """
    columns = {
        "name": lambda each: each.name,
        "pipeline": lambda each: each.pipeline,
        "expects": _expectation,
        "expires": _expiry,
        "note": lambda each: each.note,
        "id": lambda each: each.id,
    }
    found = session.environment.list_fixtures(
        pipeline=pipeline,
        name=name,
        owner=None if owner is None else member_id(session, owner),
        artifact_id=None if artifact is None else find_artifact(session, artifact).id,
        expired=expired,
    )
    show_list(found, as_json, columns, limit)


def _expectation(fixture: m.Fixture) -> str:
    return "the baseline's result" if fixture.expect == "same" else "a golden result"


def _expiry(fixture: m.Fixture) -> str:
    if fixture.expires_at is None:
        return "never"
    return f"{'expired ' if fixture.is_expired else ''}{when(fixture.expires_at)}"


@fixtures.command("show")
@click.argument("fixture", type=FIXTURE)
@json_option("Fixture")
@with_session
def show_fixture(session: Session, fixture: str, as_json: str | None) -> None:
    """Show a fixture.

    \b
    Examples:
      byteor fixtures show crossed-market
      byteor fixtures show crossed-market --json expect,artifact_id
    """
    found = find_fixture(session, fixture)
    show(
        found,
        as_json,
        {
            "name": lambda _: found.name,
            "pipeline": lambda _: found.pipeline,
            "note": lambda _: found.note,
            "replays": lambda _: _selection(found),
            "expects": lambda _: (
                f"the result of replay {found.expect.golden}"
                if not isinstance(found.expect, str)
                else _expectation(found)
            ),
            "expires": lambda _: _expiry(found),
            "created": lambda _: f"{when(found.created_at)} by {found.created_by}",
            "artifact": lambda _: found.artifact_id,
            "id": lambda _: found.id,
        },
    )


def _selection(fixture: m.Fixture) -> str:
    what = "all records" if fixture.last_n is None else f"the last {count_of(fixture.last_n, 'record')}"
    return what if fixture.journal_lane is None else f"{what} of {fixture.journal_lane}"


@fixtures.command("update")
@click.argument("fixture", type=FIXTURE)
@click.option("--name", help="The new name.")
@click.option("--note", help="Why the capture is kept.")
@click.option("--owner", help="The responsible person, by e-mail address.")
@click.option("--no-owner", is_flag=True, help="Remove the responsible person.")
@click.option("--expires", help="When the fixture expires, such as 2027-01-31.")
@click.option("--never-expires", is_flag=True, help="Remove the expiry.")
@click.option("--golden", type=REPLAY, help="Expect the result of this replay.")
@click.option("--same", is_flag=True, help="Expect the result of the baseline.")
@json_option("Fixture")
@with_session
def update_fixture(
    session: Session,
    fixture: str,
    name: str | None,
    note: str | None,
    owner: str | None,
    no_owner: bool,
    expires: str | None,
    never_expires: bool,
    golden: str | None,
    same: bool,
    as_json: str | None,
) -> None:
    """Change a fixture. Its records cannot be changed.

    \b
    Examples:
      byteor fixtures update crossed-market --note "Bid above ask" --owner ada@example.com
      byteor fixtures update crossed-market --golden e5d1c0
    """
    for one, other, both in (
        (owner, no_owner, "--owner and --no-owner"),
        (expires, never_expires, "--expires and --never-expires"),
        (golden, same, "--golden and --same"),
    ):
        if one is not None and other:
            raise Refusal(f"Use only one of {both}.", USAGE)
    changes: dict[str, Any] = {"name": name, "note": note}
    if expires is not None or never_expires:
        changes["expires_at"] = None if expires is None else moment(expires)
    if owner is not None or no_owner:
        changes["owner"] = None if owner is None else member_id(session, owner)
    if golden is not None or same:
        changes["expect"] = "same" if golden is None else golden_result(find_replay(session, golden))
    if changes == {"name": None, "note": None}:
        raise Refusal("Nothing to change. Use at least one option.", USAGE)
    found = find_fixture(session, fixture)
    saved = session.environment.update_fixture(found.id, if_match=found.etag, **changes)
    show(saved, as_json, f"Updated fixture {saved.name}")


@fixtures.command("delete")
@click.argument("fixture", type=FIXTURE)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option("Fixture")
@with_session
def delete_fixture(session: Session, fixture: str, yes: bool, as_json: str | None) -> None:
    """Delete a fixture, but not its artifact. The fixture no longer protects the artifact from retention.

    \b
    Examples:
      byteor fixtures delete crossed-market --yes
    """
    found = find_fixture(session, fixture)
    confirm(f"Delete fixture {found.name} of pipeline {found.pipeline}?", yes=yes)
    session.environment.delete_fixture(found.id, if_match=found.etag)
    show(found, as_json, f"Deleted fixture {found.name}")


# -- regressions ------------------------------------------------------------------------------------------------


@click.command()
@click.option("--draft", type=DRAFT, help="Test this draft.")
@click.option("--version", type=VERSION, help="Test this version, such as quotes:4.")
@click.option("--bundle", type=BUNDLE, help="Test this config bundle.")
@click.option("--resume", metavar="REGRESSION", help="Wait for this regression, by id, instead of starting one.")
@click.option(
    "--against",
    type=BUNDLE,
    multiple=True,
    help="Compare with this config bundle. Default: the configurations that most agents run. Can be repeated.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown for a comment on a pull request.")
@click.option("--payloads", is_flag=True, help="Print example payloads for up to 5 groups of differences.")
@click.option("--accept", multiple=True, metavar="GROUP", help="Accept this group of differences. Can be repeated.")
@click.option("--reason", help="The reason for accepting the differences.")
@waiting_options
@json_option("Regression")
@with_session
def regress(
    session: Session,
    draft: str | None,
    version: str | None,
    bundle: str | None,
    resume: str | None,
    against: tuple[str, ...],
    markdown: bool,
    payloads: bool,
    accept: tuple[str, ...],
    reason: str | None,
    detach: bool,
    timeout: int | None,
    as_json: str | None,
) -> int:
    """Run a regression: test a draft, version or config bundle against the fixtures of its pipeline.

    When the regression has finished, the exit code is 1 if there are differences that this command does not accept, if
    a fixture failed or is unstable, or if the regression was canceled or could not be completed. Otherwise, it is 0,
    even if nothing could be tested. After --timeout, it is 8.

    Payloads can be confidential. Without --json, they are printed only with --payloads.

    \b
    Examples:
      byteor regress --draft quotes
      byteor regress --bundle quotes-eu --markdown > comment.md
      byteor regress --version quotes:4 --against quotes-eu --payloads
      byteor regress --bundle quotes-eu --accept 5f0c2a --reason "Prices have four digits now"
    """
    if sum(each is not None for each in (draft, version, bundle, resume)) != 1:
        raise Refusal("Use exactly one of --draft, --version, --bundle and --resume.", USAGE)
    if accept and (not reason or draft or version or detach):
        raise Refusal(
            "--accept requires --reason." if not reason
            else "--accept cannot be used with --detach." if detach
            else "Only differences of a config bundle can be accepted.",
            USAGE,
        )  # fmt: skip
    if any(len(each) < SHORTEST for each in accept):
        raise Refusal(f"--accept requires at least {SHORTEST} characters of the id of a group.", USAGE)
    if resume and against:
        raise Refusal("--against cannot be used with --resume.", USAGE)
    row, title = _requested(session, draft, version, bundle, resume, against)
    if not detach and not row.finished_at:
        row = wait_for(
            lambda: session.environment.get_regression(row.id), f"Regression {row.id[-8:]}",
            lambda each: (each.progress.done, each.progress.total), timeout, f"byteor regress --resume {row.id}",
        )  # fmt: skip
    results = [] if not row.finished_at else list(_results(session, row))
    accepted = _accept(session, row, accept, reason, results) if accept and row.finished_at else set()
    if as_json is not None:
        show(row, as_json, "")
    elif markdown and row.finished_at:
        say(_markdown(session, row, payloads=payloads))
    else:
        _say_regression(session, row, title, results, accepted, payloads=payloads)
    if detach:
        note(f"To see the result, run `byteor regress --resume {row.id}`.")
    if not row.finished_at:
        return DONE if detach else PENDING
    return DONE if _is_clean(row, results, accepted) else FAILED


def _requested(
    session: Session,
    draft: str | None,
    version: str | None,
    bundle: str | None,
    resume: str | None,
    against: Sequence[str],
) -> tuple[m.Regression, str]:
    """Return the new or resumed regression, and a title for its result."""
    environment = session.environment
    if resume is not None:
        listed = environment.list_regressions
        row = environment.get_regression(
            resume if is_id(resume) else find(listed, resume, "regression", has_name=False).id
        )
        return row, f"Regression of {row.pipeline}"
    hashes = [_config_hash(session, each) for each in against] or None
    if draft is not None:
        found = find_draft(session, draft)
        return environment.request_regression(draft_id=found.id, against=hashes), f"Draft {found.name}"
    if version is not None:
        tested = find_version(session, version)
        title = f"Version {tested.name}:{tested.number}"
        return environment.request_regression(version_id=tested.id, against=hashes), title
    configured = find_bundle(session, str(bundle))
    title = f"Config bundle {configured.name}"
    return environment.request_regression(config_bundle_id=configured.id, against=hashes), title


def _config_hash(session: Session, text: str) -> str:
    return text if re.fullmatch("sha256:[0-9a-f]{64}", text) else str(find_bundle(session, text).config_hash)


def _results(session: Session, row: m.Regression) -> Iterator[m.RegressionResult]:
    """Yield the results of all pages."""
    page = row
    while True:
        yield from page.results or ()
        if page.next_after is None:
            return
        page = session.environment.get_regression(row.id, after=page.next_after)


def _accept(
    session: Session,
    row: m.Regression,
    chosen: Sequence[str],
    reason: str | None,
    results: Sequence[m.RegressionResult],
) -> set[str]:
    """Accept the groups whose ids begin with the texts, and return their ids.

    If a text does not match exactly one group, raises Refusal and accepts none.
    """
    known = {group for each in results for group in each.groups}
    accepted = set()
    for text in chosen:
        found = [each for each in known if each.startswith(text.lower())]
        if len(found) != 1:
            listed = ", ".join(sorted(each[:_SHORT] for each in found or known)) or "none"
            what = "matches more than one group:" if found else "is not a group of this regression. Groups:"
            raise Refusal(f"{text} {what} {listed}.", USAGE if found else FAILED)
        accepted.update(found)
    session.environment.accept_differences(row.id, groups=sorted(accepted), reason=str(reason))
    note(f"Accepted {count_of(len(accepted), 'group')} of differences.")
    return accepted


def _is_clean(row: m.Regression, results: Sequence[m.RegressionResult], accepted: set[str]) -> bool:
    """Return whether the regression passed, or found only differences that this command accepted."""
    if row.status != "differs":
        return row.status == "passed"
    different = [each for each in results if each.outcome == "different"]
    return not row.more and all(each.groups and accepted.issuperset(each.groups) for each in different)


def _say_regression(
    session: Session,
    row: m.Regression,
    title: str,
    results: Sequence[m.RegressionResult],
    accepted: set[str],
    *,
    payloads: bool,
) -> None:
    say(f"{title}: {headline(row, results)}")
    if not row.finished_at:
        return
    for baseline in row.baselines:
        running = f" ({count_of(baseline.agents, 'agent')}, {baseline.share:.0%})" if baseline.agents else ""
        say(f"Compared with {_bundle_name(session, baseline.config_hash)}{running}")
    if untested := sum(each.agents for each in row.not_tested):
        what = "ran a configuration that was" if untested == 1 else "ran configurations that were"
        note(f"{count_of(untested, 'agent')} {what} not compared.")
    broken = [each for each in results if each.outcome in {"failed", "unstable", "not_tested"}]
    if broken:
        say("")
        columns: dict[str, Callable[[Any], Any]] = {
            "fixture": lambda each: each.fixture_name,
            "verdict": lambda each: each.outcome.replace("_", " "),
            "reason": lambda each: (
                each.error or (each.stage and f"stage {each.stage} gave different results for the same records")
            ),
        }
        show_list(broken[:MOST_SHOWN], None, columns, MOST_SHOWN)
        _say_rest(len(broken) - MOST_SHOWN, "result")
    groups = row.groups or []
    if not groups:
        return
    say("")
    columns = {
        "group": lambda each: each.id[:_SHORT],
        "differences": lambda each: each.count,
        "fixtures": _fixture_names,
        "accepted": lambda each: each.id in accepted,
        "change": _group_text,
    }
    if not accepted:
        del columns["accepted"]
    show_list(groups[:MOST_SHOWN], None, columns, MOST_SHOWN)
    _say_rest(len(groups) - MOST_SHOWN, "group")
    if payloads:
        for each in groups[:MOST_EXAMPLES]:
            say(f"\nGroup {each.id[:_SHORT]}, {_place(each)}")
            for word, text in _sides(each):
                say(f"  {word.ljust(6)}  {text or '-'}")
    else:
        note("To see the payloads of examples, use --payloads.")


def _bundle_name(session: Session, config_hash: str) -> str:
    """Return the name of the newest config bundle with this hash, or the hash."""
    found = next(iter(session.environment.list_config_bundles(config_hash=config_hash, limit=1)), None)
    return config_hash if found is None else f"config bundle {found.name}"


def headline(row: m.Regression, results: Sequence[m.RegressionResult]) -> str:
    """Return the result of a regression in a sentence, or its progress."""
    if not row.finished_at:
        done, total = row.progress.done, row.progress.total
        return f"{done:,} of {count_of(total, 'verdict')}." if total else "Waiting for a worker."
    if row.error:
        return f"{row.error.rstrip('.')}."
    if row.vacuous:
        return "Nothing was tested: there are no fixtures, there is nothing to compare with, or no test could run."
    counted = Counter(outcome for outcome, _ in {(each.outcome, each.fixture_id) for each in results})
    parts = [f"{count_of(counted[word], 'fixture')} {word}" for word in ("failed", "unstable") if counted[word]]
    if counted["different"]:
        what = f"{count_of(len(row.groups), 'group')} of differences" if row.groups else "differences"
        parts.append(f"{what} on {counted['different']:,} of {count_of(int(row.fixtures or 0), 'fixture')}")
    if not parts:
        parts.append(f"no differences on {count_of(counted['equal'], 'fixture')}")
    if counted["not_tested"]:
        parts.append(f"{count_of(counted['not_tested'], 'fixture')} not tested")
    return f"{', '.join(parts)}."


def _group_text(group: m.DifferenceGroup) -> str:
    from byteor.engine.regression import group_pieces  # noqa: PLC0415  imports the engine

    return "".join(text for text, _ in group_pieces(group.to_dict()))


def _fixture_names(group: m.DifferenceGroup) -> str:
    rest = group.fixture_count - len(group.fixtures)
    return ", ".join(each.name for each in group.fixtures) + (f" and {rest:,} more" if rest > 0 else "")


def _place(group: m.DifferenceGroup) -> str:
    """Return the record and the stage of a group's example, or that the example is not available."""
    example = group.example
    if example is None:
        return "its example is not available"
    at = f", first different at stage {example.stage}" if example.stage else ""
    return f"such as record {example.sequence:,} of {example.ingress}{at}"


def _sides(group: m.DifferenceGroup) -> list[tuple[str, str]]:
    """Return the payloads of a group's example, before and after; "" for a payload that the response lacks.

    Returns an empty list if the example is not available.
    """
    example = group.example
    if example is None:
        return []
    sides: Mapping[str, Any] = {"before": example.before, "after": example.after}
    return [(word, "" if side is None else payload_text(side)) for word, side in sides.items()]


def _markdown(session: Session, row: m.Regression, *, payloads: bool) -> str:
    """Return the server's summary, the places of examples, and a link to the console.

    With ``payloads``, also contains the payloads of the examples.
    """
    from byteor.engine.regression import describe_group  # noqa: PLC0415  imports the engine

    parts = [str(row.summary or headline(row, [])).rstrip()]
    examples = [(each, each.example) for each in row.groups or [] if each.example is not None][:MOST_EXAMPLES]
    if examples:
        parts.append("#### Examples")
    for each, example in examples:
        stage = f", stage {_code(example.stage)}" if example.stage else ""
        place = f"record {example.sequence:,} of {_code(example.ingress)}{stage}"
        text = f"- {describe_group(each.to_dict())}: {place} (group `{each.id[:_SHORT]}`)"
        if payloads:
            lines = [f"{mark} {side}" for mark, (_, side) in zip("-+", _sides(each), strict=True) if side]
            fence = "`" * max(3, *(len(ticks) + 1 for line in lines for ticks in re.findall("`+", line)), 0)
            text += "\n" + "".join(f"\n  {line}" for line in (f"{fence}diff", *lines, fence))
        parts.append(text)
    url = f"{session.context.url.rstrip('/')}/admin/releases/regression/{row.id}/change/"
    return "\n\n".join([*parts, f"[Regression {row.id[-8:]}]({url})"])


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _say_rest(number: int, what: str) -> None:
    if number > 0:
        note(f"{count_of(number, f'more {what}')}. To see more, use --json.")
