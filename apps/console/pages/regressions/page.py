"""The page of a regression: its progress, what was compared, the groups of differences, and the outcomes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator, capfirst

from apps.artifacts.models import Fixture
from apps.artifacts.services.regression_details import Overview, read_groups
from apps.artifacts.services.regression_headline import PENDING
from apps.console.frame import relative_time, row_link, short_id, state_pill, with_note
from apps.console.frame.columns import TONES, actor_name, page_url, text_link
from apps.console.frame.table_pages import page_of
from apps.console.pages.artifacts.parts import hex_dump, marked
from apps.console.pages.artifacts.wording import Runs, byte_count, first_difference, hex_rows
from apps.console.pages.deployments.phrases import agent_count
from apps.console.pages.regressions.results import ResultsPage, link_baseline, reason
from apps.releases.models import AcceptedDifference, Regression
from apps.releases.services import acceptances
from byteor.engine.counted import count_of
from byteor.engine.machines import RegressionStatus
from byteor.engine.regression import group_pieces
from byteor.engine.replay.member_rows import compare_examples, payload_bytes
from byteor_cloud.concurrency.event_loop import pause

GROUPS = 50  # groups per page
_PAYLOADS = 1024 * 1024  # the maximum number of bytes of JSON of all examples that a page shows with payloads
_GROUP = re.compile("[0-9a-f]{64}")
_BEFORE, _AFTER = 160, 320  # bytes that are shown before and after the first difference of two texts
_NAME = 60  # characters of a fixture's name
_POINTERS = 5  # members that the title of a group names; if there are more, all are listed below it


def candidate(row: Regression) -> str:
    """Return the name of what a regression tests. The query must select the candidate, and a bundle's version."""
    if row.config_bundle is not None:
        return f"{row.config_bundle.version}, {row.config_bundle}"
    if row.version is not None:
        return str(row.version)
    return f"draft {row.draft}" if row.draft is not None else f"a deleted draft of {row.pipeline}"


def chosen_group(request: HttpRequest) -> str | None:
    """Return the id of the group to which the page is limited; None without a valid id."""
    text = request.GET.get("group", "")
    return text if _GROUP.fullmatch(text) else None


# -- progress ---------------------------------------------------------------------------------------------------


def progress_bar(row: Regression) -> dict[str, Any] | None:
    """Return the progress bar of a running regression; None in any other state, and if there is nothing to test."""
    if row.status != RegressionStatus.RUNNING or not row.progress_total:
        return None
    done, left = row.progress_done, row.progress_total - row.progress_done
    key = [("good", f"{done:,}", "known"), ("plain", f"{left:,}", "left")]
    text = f"{done:,} of {count_of(row.progress_total, 'verdict')}"
    return {"title": "Verdicts", "text": text, "parts": [("good", done), ("plain", left)], "key": key}


# -- what was compared ------------------------------------------------------------------------------------------


def facts(row: Regression) -> list[tuple[str, object]]:
    """Return the regression's inputs and costs as labels and values."""
    tested = row.config_bundle or row.version or row.draft
    found: list[tuple[str, object]] = [
        ("Candidate", candidate(row) if tested is None else row_link(tested, candidate(row))),
        ("Config hash", row.config_hash and short_id(row.config_hash)),
        ("Tests", "what runs now, with golden fixtures only" if row.of_current else ""),
        ("Fixtures", row.started_at and f"{row.fixtures:,}"),
        ("Verdicts", _verdicts(row)),
        ("Work", describe_work(row)),
        ("Requested by", actor_name(row.requested_by)),
        ("Started", row.started_at and relative_time(row.started_at)),
        ("Finished", row.finished_at and relative_time(row.finished_at)),
    ]
    return [(label, value) for label, value in found if value]


def _verdicts(row: Regression) -> str:
    if not row.reused and not row.computed:
        return ""
    return f"{row.reused:,} reused, {row.computed:,} computed"


def describe_work(row: Regression) -> str:
    """Return the work of both sides, and the difference; "" if the baselines' work is 0."""
    if not row.work_baseline:
        return ""
    change = row.work_candidate / row.work_baseline - 1
    return f"candidate {row.work_candidate:,} units, baselines {row.work_baseline:,} units ({change:+.0%})"


def compared_panel(row: Regression, links: Mapping[str, str], overview: Overview) -> dict[str, Any]:
    """Return the panel of the baselines, and of the configurations that were not tested."""
    rows: list[tuple[Any, ...]] = [
        (
            link_baseline(links, each["config_hash"]),
            short_id(each["config_hash"]),
            agent_count(each["agents"]),
            f"{each['share']:.1%}",
            "yes",
        )
        for each in row.baselines
    ]
    rows += [(short_id(each["config_hash"]), "", agent_count(each["agents"]), "", "no") for each in overview.untested]
    rest = overview.untested_count - len(overview.untested)
    return {
        "id": "compared",
        "title": "Compared with",
        "lead": f"{count_of(rest, 'further configuration')} {'was' if rest == 1 else 'were'} not tested."
        if rest
        else "",
        "columns": ("Baseline", "Config hash", "Agents", "Share", "Tested"),
        "rows": rows,
        "empty": "This regression has no baselines. Only fixtures with a golden result are tested.",
    }


# -- groups -----------------------------------------------------------------------------------------------------


def groups_panel(
    request: HttpRequest, row: Regression, total: int, links: Mapping[str, str], *, may_read: bool
) -> dict[str, Any]:
    """Return a page of the groups of differences. ``may_read``: whether the person may see captured records."""
    only = chosen_group(request)
    number, first = page_of(request.GET.get("groups", ""), total, GROUPS)
    found = read_groups(row, first=first, count=GROUPS, with_payloads=may_read, group=only, limit=_PAYLOADS)
    shown = show_groups(row, found, links, may_read=may_read)
    accepted = group_acceptances(acceptances.find_accepted(row, [each["id"] for each in found]))
    for each, group in zip(shown, found, strict=True):
        each.update(_acceptance(group, accepted.get(group["id"], ())))
    return {
        "groups": shown,
        "only": only,
        "may_read": may_read,
        "total": f"{total:,}",
        "first": f"{first + 1:,}",
        "last": f"{first + len(found):,}",
        "previous": number - 1 if number > 1 and not only else None,
        "next": number + 1 if first + GROUPS < total and not only else None,
        "more": f"{count_of(row.more, 'further difference')} {'is' if row.more == 1 else 'are'} in no group."
        if row.more
        else "",
    }


def show_groups(
    row: Regression,
    groups: Sequence[Mapping[str, Any]],
    links: Mapping[str, str],
    *,
    may_read: bool,
    fixtures: Iterable[UUID] | None = None,
) -> list[dict[str, Any]]:
    """Return the data of ``difference_group.html`` for each group. The groups must contain their ``example``.

    ``fixtures`` are the ids of ``named_fixtures``. If they are not given, this function reads them.
    """
    live = {str(pk) for pk in (named_fixtures(groups) if fixtures is None else fixtures)}
    shown = []
    for each in groups:
        pause()  # let other requests run, since a page may have 50 large examples
        shown.append(_group(row, each, live, links, may_read=may_read))
    return shown


def named_fixtures(groups: Iterable[Mapping[str, Any]]) -> QuerySet[Fixture, UUID]:
    """Return the ids of the fixtures that the groups name and that still exist."""
    ids = {fixture["id"] for each in groups for fixture in each["fixtures"]}
    return Fixture.objects.filter(pk__in=ids).values_list("pk", flat=True)


def _group(
    row: Regression, group: Mapping[str, Any], live: Collection[str], links: Mapping[str, str], *, may_read: bool
) -> dict[str, Any]:
    example = group["example"]
    facts = [
        ("Fixtures", _fixtures(row, group, live)),
        ("Baselines", _baselines(group, links)),
        ("Stage", example and example["stage"]),
        ("Example", example and format_html("record {} of {}", f"{example['sequence']:,}", example["ingress"])),
    ]
    return {
        "id": group["id"],
        "title": name_group(group),
        "count": count_of(group["count"], "difference"),
        "facts": [(label, value) for label, value in facts if value],
        "pointers": group["pointers"] if len(group["pointers"]) > _POINTERS else [],
        **_example(row, group, may_read=may_read),
    }


def group_acceptances(accepted: Iterable[AcceptedDifference]) -> dict[str, list[AcceptedDifference]]:
    """Return the accepted differences by the id of their group."""
    found: dict[str, list[AcceptedDifference]] = {}
    for each in accepted:
        found.setdefault(each.group, []).append(each)
    return found


def describe_acceptances(given: Iterable[AcceptedDifference], *, limit: int | None = None) -> str:
    """Return who accepted a group, when and why, with each acceptance once. ``limit``: characters of each reason."""
    once = {each.acceptance_id: each.acceptance for each in given}
    texts = (
        (each.accepted_by, relative_time(each.created_at), Truncator(each.reason).chars(limit or len(each.reason)))
        for each in once.values()
    )
    return format_html_join("", '<div class="note">{}, {}: “{}”</div>', texts)


def is_accepted(group: Mapping[str, Any], accepted: Iterable[AcceptedDifference]) -> bool:
    """Return whether the differences of a group are accepted for each baseline that shows them."""
    covered = {each.baseline for each in accepted}
    return all(each["config_hash"] in covered for each in group["baselines"])


def _acceptance(group: Mapping[str, Any], given: Sequence[AcceptedDifference]) -> dict[str, Any]:
    """Return the pill and the texts of the given acceptances of a group; {} if there are none."""
    if not given:
        return {}
    pill = state_pill("accepted" if is_accepted(group, given) else "not accepted")
    note = "" if is_accepted(group, given) else "The acceptances do not cover all comparisons that show this group."
    return {"accepted": pill, "acceptances": describe_acceptances(given), "acceptance_note": note}


def name_group(group: Mapping[str, Any]) -> str:
    """Return the name of a group as HTML, with the names that it contains as code."""
    pieces = _cap(group_pieces(group))
    shown = (format_html("<code>{}</code>", text) if is_name else text for text, is_name in pieces)
    return format_html_join("", "{}", ((each,) for each in shown))


def label_group(group: Mapping[str, Any]) -> str:
    """Return the name of a group with the number of its differences, as the label of a form field."""
    return format_html("{} <span>({})</span>", name_group(group), count_of(group["count"], "difference"))


def _cap(pieces: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    (first, is_name), *rest = pieces
    return [(capfirst(first), is_name), *rest]


def _fixtures(row: Regression, group: Mapping[str, Any], live: Collection[str]) -> str:
    """Return the first fixtures that show a group, with links unless they were deleted. "N more" links to all."""
    named = [
        text_link(page_url(Fixture, "change", each["id"]), name) if each["id"] in live else name
        for each in group["fixtures"]
        for name in [_short(each["name"])]
    ]
    if (rest := group["fixture_count"] - len(named)) > 0:
        url = page_url(Regression, "change", row.pk, query={"group": group["id"]}, fragment="results")
        named.append(text_link(url, f"{rest:,} more"))
    return format_html_join(", ", "{}", ((each,) for each in named))


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _baselines(group: Mapping[str, Any], links: Mapping[str, str]) -> str:
    """Return the baselines of a group. If there are several, each has its number of differences."""
    found = group["baselines"]
    counts = [f": {each['count']:,}" if len(found) > 1 else "" for each in found]
    named = (link_baseline(links, each["config_hash"]) for each in found)
    return format_html_join(", ", "{}{}", zip(named, counts, strict=True))


def _example(row: Regression, group: Mapping[str, Any], *, may_read: bool) -> dict[str, Any]:
    """Return the members that differ in the example of a group, or its payloads, or a note why there are none.

    Returns {} if the group has an example that the person may not see.
    """
    example = group["example"]
    if example is None:
        return {
            "note": "No example is available. It was deleted or not stored, or its artifact is not in this environment."
        }
    if not may_read:
        return {}
    before, after = example["before"], example["after"]
    if before is None and after is None:
        url = page_url(Regression, "change", row.pk, query={"group": group["id"]}, fragment="groups")
        link = text_link(url, "Show this group only")
        return {"note": format_html("The records on this page are too large to show all of them. {}", link)}
    if (members := compare_examples(before, after)) is not None:
        return {"members": members}
    return {"sides": [_side("Baseline", before, after), _side("Candidate", after, before)]}


def _side(title: str, shown: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a payload around the first difference: as text, or as hex if a payload is not printable text."""
    if shown is None:
        return {"title": title}
    payload, opposite = payload_bytes(shown), None if other is None else payload_bytes(other)
    note = f"only the first {byte_count(len(payload))} are stored" if shown["truncated"] else byte_count(len(payload))
    is_text = _is_text(payload) and (opposite is None or _is_text(opposite))
    dump = marked(_excerpt(payload, opposite or b"")) if is_text else hex_dump(hex_rows(payload, opposite))
    return {"title": title, "note": note, "dump": dump, "form": "text" if is_text else "hex"}


def _is_text(payload: bytes) -> bool:
    text = payload.decode("utf-8", "replace").rstrip("\N{REPLACEMENT CHARACTER}")  # the last character may be cut
    return text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text


def _excerpt(payload: bytes, other: bytes) -> Runs:
    """Return the text around the first difference, marked from the first character that differs."""
    at = first_difference(payload, other)
    while 0 < at < len(payload) and payload[at] & 0b1100_0000 == 0b1000_0000:  # inside a UTF-8 character
        at -= 1
    start, end = max(0, at - _BEFORE), at + _AFTER
    # Characters that are cut at the start and the end of the excerpt are left out.
    before, after = (part.decode("utf-8", "ignore") for part in (payload[start:at], payload[at:end]))
    runs = [(f"{'…' if start else ''}{before}", False), (after, True), ("…" if end < len(payload) else "", False)]
    return [each for each in runs if each[0]]


# -- results ----------------------------------------------------------------------------------------------------


def results_table(page: ResultsPage, links: Mapping[str, str]) -> dict[str, Any]:
    """Return the data of the table of outcomes, of its filter and of its page links."""
    rows = [
        (
            text_link(page_url(Fixture, "change", each.fixture_id), _short(each.fixture_name))
            if each.fixture_id in page.fixtures
            else with_note(_short(each.fixture_name), "deleted"),
            link_baseline(links, each.baseline),
            state_pill(each.outcome or PENDING),
            f"{each.groups:,}" if each.groups else "-",
            reason(each) or "-",
        )
        for each in page.rows
    ]
    kinds = [
        {"word": word, "count": f"{count:,}", "label": word.replace("_", " "), "tone": TONES.get(word, "plain")}
        for word, count in page.kinds
    ]
    return {
        "rows": rows, "kinds": kinds, "outcome": page.outcome, "total": f"{page.total:,}", "first": f"{page.first:,}",
        "columns": ("Fixture", "Compared with", "Outcome", "Groups", "Why"), "last": f"{page.last:,}",
        "previous": page.previous, "next": page.next,
    }  # fmt: skip
