"""The page of a bisect: its result, and the verdict on each version."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django.utils.html import format_html

from apps.artifacts.models import Bisect, Replay
from apps.artifacts.services.captures import compare_replays
from apps.console.frame import row_link, with_note
from apps.console.frame.columns import page_url, row_url
from apps.console.pages.artifacts.wording import describe_unchecked
from apps.console.pages.replays import differences
from byteor.engine.replay import BisectOutcome, Predicate
from byteor.engine.replay.compare import compare_with_members
from byteor_cloud.computing.compute import Compute
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import DomainError

_TONES = {"good": "good", "bad": "bad", "untestable": "warn", None: "plain"}
_NAMED = 5  # versions named in a sentence


def bisect_headline(row: Bisect) -> str:
    """Return the result or the progress as a sentence, and name versions in which stages had no parameters."""
    unchecked = [f"v{each['number']}" for each in row.versions or () if each.get("no_parameters")]
    if not unchecked:
        return _finding(row)
    shown = ", ".join(unchecked[:_NAMED]) + (f" and {len(unchecked) - _NAMED} more" if len(unchecked) > _NAMED else "")
    return f"{_finding(row)} Stages without parameters let every record pass unchanged in {shown}."


def _finding(row: Bisect) -> str:
    match row.outcome:
        case BisectOutcome.FOUND:
            return f"{row.first_bad} is the first bad version."
        case BisectOutcome.NO_CHANGE:
            return "The first and the last tested version have the same verdict."
        case BisectOutcome.INVERTED:
            return "The first tested version is bad, and the last one is good."
        case BisectOutcome.INCONCLUSIVE:
            return "Too few versions could be tested to find the first bad one."
    if row.error:
        return f"{row.error[:1].upper()}{row.error[1:]}".rstrip(".") + "."
    if row.versions is None:  # lists do not read the versions if there are many
        return "The page of the bisect shows the verdicts so far."
    done = sum(each["verdict"] is not None for each in row.versions)
    return f"{done} of {len(row.versions)} versions {'has' if done == 1 else 'have'} a verdict."


def predicate(row: Bisect) -> str:
    """Return the condition under which a version is bad, as a phrase."""
    texts = {
        "diverges": "its output differs from the captured output, or a stage fails and the recording does not contain "
        "this failure",
        "fails": "a stage fails",
    }
    if isinstance(row.predicate, str):
        return texts[row.predicate]
    other = Replay.objects.filter(pk=row.predicate["output_differs_from"]).first()
    return format_html("its output differs from that of {}", row_link(other))


def verdict_strip(row: Bisect) -> list[dict[str, Any]]:
    """Return the verdicts from the oldest to the newest version. Adjacent versions without a replay share a cell."""
    cells = []
    for (verdict, replay), group in groupby(row.versions, lambda each: (each["verdict"], each["replay_id"])):
        same = list(group)
        numbers = [f"v{each['number']}" for each in (same[0], same[-1])]
        cells.append(
            {
                "tone": _TONES[verdict],
                "word": verdict or ("no verdict" if replay else "not replayed"),
                "versions": numbers[0] if len(same) == 1 else " to ".join(numbers),
                "url": replay and page_url(Replay, "change", replay),
            }
        )
    return cells


def difference(row: Bisect, *, may_read: bool, compute: Compute) -> dict[str, Any] | None:
    """Return the panel that shows how the output of ``first_bad`` differs; None if there is nothing to show.

    The output is compared as the predicate says: with the captured output, or with that of another replay, which needs
    ``may_read``. Without a difference, or if the predicate is ``fails``, the panel says why the replay stopped.
    """
    first_bad = str(row.first_bad_id)
    replay_id = next((each["replay_id"] for each in row.versions or () if each["version_id"] == first_bad), None)
    replays = Replay.objects.select_related("version", "artifact__environment__project")
    replay = replays.filter(pk=replay_id).first() if replay_id is not None else None
    if replay is None:
        return None
    title = f"Why {replay.version} is bad"
    found = None
    if isinstance(row.predicate, dict):
        other = replays.filter(pk=row.predicate["output_differs_from"]).first()
        found = _compared(other, replay, compute=compute) if may_read and other is not None else None
    elif row.predicate == Predicate.DIVERGES:
        found = differences.divergence(replay, differences.find_records(replay, may_read=may_read, compute=compute))
    if found is None and replay.error:
        found = {"rows": [], "empty": replay.error}
    return found and {**found, "title": title, "url": row_url(replay), "link": "Open the replay"}


def _compared(other: Replay, replay: Replay, *, compute: Compute) -> dict[str, Any] | None:
    """Return the panel of the first difference from another replay; None if there is none to show."""
    try:
        found, members = compare_replays(other, replay, compare_with_members, compute=compute)
    except DomainError:
        return None
    first = found["first_difference"]
    return first and differences.first_difference(first, members, str(other.version), str(replay.version))


def verdicts(row: Bisect) -> dict[str, Any]:
    """Return the panel of the versions that were chosen for a replay."""
    replay_ids = [each["replay_id"] for each in row.versions if each["replay_id"]]
    replays = without_large(Replay.objects.all()).in_bulk(replay_ids)
    by_id = {str(pk): replay for pk, replay in replays.items()}
    rows = [
        (
            f"v{each['number']}",
            with_note(
                format_html(
                    '<span class="pill {}">{}</span>', _TONES[each["verdict"]], each["verdict"] or "no verdict"
                ),
                describe_unchecked(each.get("no_parameters", ())),
            ),
            row_link(by_id.get(each["replay_id"]), "Replay"),
        )
        for each in row.versions
        if each["replay_id"]
    ]
    columns = ("Version", "Verdict", "Replay")
    return {"title": "Replayed versions", "columns": columns, "rows": rows, "empty": "No version has been replayed."}
