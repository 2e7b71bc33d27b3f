"""Regressions: keys of verdicts, the merged groups of differences, and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from byteor.engine.canonical import canonical, sha256
from byteor.engine.replay import FixtureOutcome

MAX_GROUPS = 1_000
MAX_NAMED = 5  # fixtures that are named for each group
_SUMMARY_GROUPS = 20  # groups that the summary lists
_SUMMARY_POINTERS = 5  # members that the summary lists for each group


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
    """Return the key under which a verdict is stored. It covers everything that the verdict depends on.

    ``candidate`` and ``baseline`` are config hashes. ``golden`` is the expected result, and None if the result of the
    baseline is expected.
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
    """A group of equal differences in several verdicts. ``verdict`` is the id of the one that has the example."""

    group: Mapping[str, Any]
    verdict: str
    fixtures: dict[str, str] = field(default_factory=dict)  # the names of all fixtures that show it, by id
    baselines: dict[str | None, int] = field(default_factory=dict)  # the number of differences by config hash


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
    ) -> None:
        """Add the groups of a verdict. ``fixture`` is the id and the name of the fixture."""
        self.more += more
        for group in groups:
            if (merged := self._found.get(group["id"])) is None:
                if len(self._found) == MAX_GROUPS:
                    self.more += group["count"]
                    continue
                merged = self._found[group["id"]] = MergedGroup(group, verdict)
            merged.fixtures.setdefault(*fixture)
            merged.baselines[baseline] = merged.baselines.get(baseline, 0) + group["count"]

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
    "missing": "no longer outputs",
    "extra": "newly outputs",
    "bytes": "changes the bytes of",
    "stop": "stops differently",
    "action": "has other side effects",
}


def describe_group(group: Mapping[str, Any]) -> str:
    """Return the difference of a group in words, for example ``changes 2 members of out``."""
    kind, egress = group["kind"], group["egress"]
    if kind == "changed":
        members = ", ".join(f"`{each or '/'}`" for each in group["pointers"][:_SUMMARY_POINTERS])
        rest = len(group["pointers"]) - _SUMMARY_POINTERS
        return f"changes {members}{f' and {rest} more' if rest > 0 else ''} in `{egress}`"
    reason = f" (`{group['code']}`)" if group["code"] else ""
    if egress is None:
        return f"{_KINDS[kind]}{reason}"
    return f"{_KINDS[kind]} {'' if kind == 'bytes' else 'records to '}`{egress}`{reason}"


def summarize(
    *,
    candidate: str,
    status: str,
    outcomes: Mapping[FixtureOutcome, int],
    baselines: Sequence[Mapping[str, Any]],
    not_tested: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    more: int,
    work: tuple[int, int],
    error: str | None,
) -> str:
    """Return a regression's result as Markdown that fits into a comment on a pull request."""
    total = sum(outcomes.values())
    lines = [f"### {candidate}: {_HEADLINES[status] if total or error else 'nothing was tested'}", ""]
    if error:
        lines += [error, ""]
    if total:
        counted = ", ".join(
            f"{outcomes[each]} {str(each).replace('_', ' ')}" for each in FixtureOutcome if outcomes.get(each)
        )
        lines += [f"{total} {'verdict' if total == 1 else 'verdicts'}: {counted}.", ""]
    elif not error:
        lines += ["The pipeline has no fixtures, or no agent runs a configuration to compare with.", ""]
    if baselines:
        lines += ["| compared with | agents | share |", "| --- | ---: | ---: |"]
        lines += [f"| `{each['config_hash']}` | {each['agents']} | {each['share']:.1%} |" for each in baselines]
        lines.append("")
    if untested := sum(each["agents"] for each in not_tested):
        lines += [
            f"{untested} {'agent runs' if untested == 1 else 'agents run'} a configuration that was not tested.",
            "",
        ]
    if groups:
        lines += ["| the candidate | records | fixtures |", "| --- | ---: | --- |"]
        lines += [_group_row(each) for each in groups[:_SUMMARY_GROUPS]]
        lines.append("")
        if (rest := len(groups) - _SUMMARY_GROUPS) > 0:
            lines += [f"… and {rest} more groups.", ""]
    if more:
        lines += [f"{more} further differences are in no group.", ""]
    if work[1]:
        lines += [f"Work: {work[0]:,} units, {work[0] / work[1] - 1:+.0%} compared with the baselines.", ""]
    return "\n".join(lines)


_HEADLINES = {
    "passed": "no differences",
    "differs": "differences found",
    "failed": "the test failed",
    "cancelled": "the test was canceled",
}


def _group_row(group: Mapping[str, Any]) -> str:
    names = ", ".join(each["name"].replace("|", "\\|") for each in group["fixtures"])
    rest = group["fixture_count"] - len(group["fixtures"])
    return f"| {describe_group(group)} | {group['count']:,} | {names}{f' and {rest} more' if rest > 0 else ''} |"
