"""Regressions: keys of verdicts, the merged groups of differences, and a summary in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from byteor.engine.canonical import canonical, sha256
from byteor.engine.counted import count_of
from byteor.engine.replay import FixtureOutcome

MAX_GROUPS = 1_000
MAX_NAMED = 5  # the maximum number of fixtures that are named for each group
_SUMMARY_ROWS = 20  # the maximum number of rows of each table in the summary
_SUMMARY_POINTERS = 5  # the maximum number of members that are named for each group
# The maximum number of characters that the summary shows of a name, of a verdict's reason and of an error.
_SUMMARY_NAME, _SUMMARY_REASON, _SUMMARY_ERROR = 80, 300, 1_000
# Control characters, surrogates, and characters that break lines, change the direction of text or are not visible.
_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def verdict_key(
    content_hash: str,
    journal_lane: str | None,
    last_n: int | None,
    golden: Mapping[str, Any] | None,
    *,
    candidate: str,
    baseline: str | None,
    engine: str,
) -> str:
    """Return the key under which a verdict is stored.

    ``candidate`` and ``baseline`` are config hashes. If a fixture expects golden results, ``baseline`` is None, and
    ``golden`` contains these results and the hash of the configuration with which a candidate is compared if its result
    is none of them. If the fixture expects the result of the baseline, ``golden`` is None.
    """
    fixture = {
        "content_hash": content_hash,
        "journal_lane": journal_lane,
        "last_n": last_n,
        "expect": "same" if golden is None else {"golden": golden},
    }
    return sha256(canonical({"fixture": fixture, "candidate": candidate, "baseline": baseline, "engine": engine}))


@dataclass(slots=True)
class MergedGroup:
    """A group of differences that several verdicts may have. ``verdict`` is the id of the first verdict that has it."""

    group: Mapping[str, Any]
    verdict: str
    fixtures: dict[str, str] = field(default_factory=dict)  # the names of all fixtures that show it, by id
    baselines: dict[str | None, int] = field(default_factory=dict)  # differences by config hash (None: golden results)


class MergedGroups:
    """The groups of a regression. After ``MAX_GROUPS``, differences of further groups are only counted."""

    def __init__(self) -> None:
        self.more = 0
        self._found: dict[str, MergedGroup] = {}

    def add(
        self,
        verdict: str,
        groups: Iterable[Mapping[str, Any]],
        more: int,
        *,
        fixture: tuple[str, str],
        baseline: str | None,
    ) -> tuple[list[str], int]:
        """Add the groups of a verdict, and ``more``, the number of its other differences.

        ``fixture`` is the id and the name of the fixture. Returns the ids of the groups that were kept, and the number
        of the verdict's differences that are in none of them.
        """
        added: list[str] = []
        for group in groups:
            if (merged := self._found.get(group["id"])) is None:
                if len(self._found) == MAX_GROUPS:
                    more += group["count"]
                    continue
                merged = self._found[group["id"]] = MergedGroup(group, verdict)
            added.append(merged.group["id"])
            merged.fixtures.setdefault(*fixture)
            merged.baselines[baseline] = merged.baselines.get(baseline, 0) + group["count"]
        self.more += more
        return added, more

    def as_json(self) -> list[dict[str, Any]]:
        """Return the groups as JSON data, the most frequent first."""
        ranked = sorted(self._found.values(), key=lambda each: (-sum(each.baselines.values()), each.group["id"]))
        return [
            {
                **{name: each.group[name] for name in ("id", "egress", "kind", "pointers", "code")},
                "count": sum(each.baselines.values()),
                "baselines": [{"config_hash": name, "count": count} for name, count in each.baselines.items()],
                "fixture_count": len(each.fixtures),
                "fixtures": [{"id": id, "name": name} for id, name in list(each.fixtures.items())[:MAX_NAMED]],
                "verdict_id": each.verdict,
            }
            for each in ranked
        ]


_KINDS = {
    "changed": "changes",
    "missing": "no longer outputs records to",
    "extra": "newly outputs records to",
    "bytes": "changes the bytes of",
    "stop": "stops differently",
    "action": "has other side effects",
}
_HEADLINES = {
    "passed": "no differences",
    "differs": "differences found",
    "failed": "the test failed",
    "cancelled": "the test was canceled",
}


def group_pieces(group: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Describe the differences of a group in pieces of text. Returns each piece, and whether it is a name.

    Names are, for example, the names of egresses and members. At most five members are named.
    """
    kind, egress = group["kind"], group["egress"]
    if kind == "changed":
        pieces = [("changes ", False)]
        for number, pointer in enumerate(group["pointers"][:_SUMMARY_POINTERS]):
            pieces += [(", ", False)] * (number > 0) + [(pointer, True) if pointer else ("the record", False)]
        return [*pieces, (f"{_rest(len(group['pointers']) - _SUMMARY_POINTERS)} in ", False), (egress, True)]
    pieces = [(_KINDS[kind], False)]
    pieces += [(" ", False), (egress, True)] if egress is not None else []
    return pieces + ([(" (", False), (group["code"], True), (")", False)] if group["code"] else [])


def describe_group(group: Mapping[str, Any]) -> str:
    """Describe the differences of a group in Markdown, with names as code."""
    return "".join(_code(text) if is_name else text for text, is_name in group_pieces(group))


def summarize(
    *,
    candidate: str,
    status: str,
    outcomes: Mapping[FixtureOutcome, int],
    reasons: Mapping[str, int],
    baselines: Sequence[Mapping[str, Any]],
    not_tested: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    more: int,
    work: tuple[int, int],
    error: str | None,
) -> str:
    """Return a regression's result as Markdown that fits into a comment on a pull request.

    Names are shown as code, so that Markdown, HTML and mentions in them have no effect. ``reasons`` say why fixtures
    failed, are unstable or were not tested, or why a difference has no group, each with its number of verdicts.
    ``work`` is the work of the candidate and of the baselines on the same records. It is not shown if the baselines did
    no work.
    """
    total = sum(outcomes.values())
    is_tested = total > outcomes.get(FixtureOutcome.NOT_TESTED, 0)
    parts = [f"### {_code(candidate)}: {_HEADLINES[status] if is_tested or error else 'nothing was tested'}"]
    if error:
        parts.append(_code(error, _SUMMARY_ERROR))
    if total:
        counted = ", ".join(
            f"{outcomes[each]:,} {each.replace('_', ' ')}" for each in FixtureOutcome if outcomes.get(each)
        )
        parts.append(f"{count_of(total, 'verdict')}: {counted}.")
    if reasons:
        rows = [f"| {_code(each, _SUMMARY_REASON)} | {count:,} |" for each, count in reasons.items()]
        parts.append(_table("| reason | verdicts |\n| --- | ---: |", rows, "reason"))
    if not total and not error:
        parts.append("There were no fixtures to test, or no agent ran a configuration to compare with.")
    if baselines:
        rows = [f"| {_code(each['config_hash'])} | {each['agents']:,} | {each['share']:.1%} |" for each in baselines]
        parts.append(_table("| compared with | agents | share |\n| --- | ---: | ---: |", rows, "configuration"))
    if untested := sum(each["agents"] for each in not_tested):
        verb = "runs" if untested == 1 else "run"
        parts.append(f"{count_of(untested, 'agent')} {verb} a configuration that was not tested.")
    if groups:
        rows = [_group_row(each) for each in groups]
        parts.append(_table("| the candidate | differences | fixtures |\n| --- | ---: | --- |", rows, "group"))
    if more:
        parts.append(f"{count_of(more, 'further difference')} {'is' if more == 1 else 'are'} in no group.")
    if work[1]:
        parts.append(f"Work: {count_of(work[0], 'unit')}, {work[0] / work[1] - 1:+.0%} compared with the baselines.")
    return "\n\n".join(parts) + "\n"


def _group_row(group: Mapping[str, Any]) -> str:
    names = [_code(each["name"]) for each in group["fixtures"]]
    listed = ", ".join(names) + _rest(group["fixture_count"] - len(names))
    return f"| {describe_group(group)} | {group['count']:,} | {listed} |"


def _table(head: str, rows: Sequence[str], what: str) -> str:
    rest = len(rows) - _SUMMARY_ROWS
    more = f"\n\n… and {count_of(rest, f'more {what}')}." if rest > 0 else ""
    return "\n".join([head, *rows[:_SUMMARY_ROWS]]) + more


def _rest(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _code(text: str, length: int = _SUMMARY_NAME) -> str:
    """Return at most ``length`` characters of a text as inline code, in one line and safe in a table."""
    line = _UNSAFE.sub(" ", text)
    line = (line if len(line) <= length else line[: length - 1] + "…").replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if not line.strip(" ") or line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"
