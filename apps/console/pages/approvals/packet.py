"""The packet on the page of an approval: what was tested, the output that changes, and what a rollback restores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from django.utils.html import format_html

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services import packets
from apps.artifacts.services.packets import Packet, Summary
from apps.console.frame import relative_time, short_id, with_note
from apps.console.frame.columns import page_url, text_link
from apps.console.frame.console_user import console_user_of
from apps.console.pages.approvals.accepting import MAX_GROUPS
from apps.console.pages.approvals.deciding import may_decide
from apps.console.pages.artifacts.running import may_read_records
from apps.console.pages.deployments.phrases import agent_count
from apps.console.pages.regressions import page
from apps.console.pages.regressions.results import baseline_bundles, links_to
from apps.releases.models import Approval, Deployment, Regression
from apps.releases.services.changes import find_changes
from byteor.engine.blockers import BlockerCode
from byteor.engine.counted import count_of
from byteor_cloud.computing.compute import Compute
from byteor_cloud.database.together import Plan, read_together

_BYTES = 2 * 1024 * 1024  # the size limit of the packet's JSON


def plan(request: HttpRequest, row: Approval, deployment: Deployment | None) -> Plan[Summary | None]:
    """Return the ``Plan`` for the packet's summary. ``show`` gets the summary from the request.

    Without a regression, the summary is None.
    For a person who may decide, the summary has the groups that the form for the decision offers.
    """
    if deployment is None or deployment.regression_id is None:
        return None
    deployment.environment = row.environment  # saves a query
    offered = MAX_GROUPS if may_decide(row, console_user_of(request)) else 0
    found = yield from packets.plan_summary(deployment, unaccepted=offered)
    request._packet = found  # type: ignore[attr-defined]  # an attribute of our own, as a cache
    return found


def banner(deployment: Deployment, summary: Summary | None) -> dict[str, Any]:
    """Return the banner: the packet's headline, an override of the gate, why the gate blocks, and the tone."""
    override = deployment.replay_gate_override
    lines = [f"The replay gate is overridden: “{override}”"] if override else []
    if summary is None:
        return {"tone": "plain", "text": packets.why_untested(deployment, None), "lines": lines}
    is_fine = summary.is_tested and not summary.blockers and not summary.group_count
    lines += [each.detail for each in summary.blockers if each.code != BlockerCode.GATE_RUNNING]  # the headline says it
    return {"tone": "plain" if is_fine else "warn", "text": summary.headline, "lines": lines}


def bar(summary: Summary | None) -> dict[str, Any] | None:
    """Return the progress bar of the regression, if it has one (see ``page.progress_bar``)."""
    return None if summary is None or summary.row is None else page.progress_bar(summary.row)


def version(summary: Summary | None) -> str:
    """Return a text that changes when the packet should be shown again."""
    row = None if summary is None else summary.row
    return "" if row is None else f"{row.pk} {row.status}"


def show(request: HttpRequest, deployment: Deployment, *, compute: Compute) -> dict[str, Any]:
    """Return what the deployment changes and, if it has a regression, the other parts of the packet.

    Call it after ``plan`` has run.
    """
    summary: Summary | None = getattr(request, "_packet", None)
    version = deployment.config_bundle.version
    if summary is None or summary.row is None:
        return {"changes": find_changes(deployment, compute=compute), "version": version}
    may_read = may_read_records(request, deployment)
    packet = packets.read_packet(
        deployment, with_payloads=may_read, compute=compute, summary=summary, max_groups=page.GROUPS,
        limit=_BYTES,
    )  # fmt: skip
    panels = [_agents(summary), _captures(packet), _removed(packet), _rollback(packet), *_explanations(packet)]
    output = _output(summary.row, packet, may_read=may_read)
    return {"changes": packet.changes, "version": version, "output": output, "panels": panels}


def _output(row: Regression, packet: Packet, *, may_read: bool) -> dict[str, Any]:
    bundles, fixtures = read_together(baseline_bundles([row]), page.named_fixtures(packet.groups))
    groups = page.show_groups(row, packet.groups, links_to(bundles), may_read=may_read, fixtures=fixtures)
    for shown, group in zip(groups, packet.groups, strict=True):
        shown["facts"] += _facts(group)
    left = packet.summary.group_count - len(groups)
    more = [f"{count_of(left, 'further group')} {'is' if left == 1 else 'are'} shown on the regression's page."]
    more = more if left else []
    if row.more:
        what = "further difference" if groups else "difference"
        more.append(f"{count_of(row.more, what)} {'is' if row.more == 1 else 'are'} in no group.")
    empty = packet.summary.headline
    if packet.summary.is_tested:
        empty = "No differences could be grouped." if row.more else "No differences were found."
    url = page_url(Regression, "change", row.pk)
    return {"groups": groups, "may_read": may_read, "more": more, "empty": empty, "url": url}


def _facts(group: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a group's explanations by the requester, its acceptances, and the fixtures not seen when accepted."""
    found: list[tuple[str, Any]] = [("Explanation of the requester", text) for text in group["explanations"]]
    for each in group["accepted"]:
        by = format_html("{}, {}", each["accepted_by"], relative_time(each["accepted_at"]))
        label = "Accepted" if group["counts"] else "Accepted, but not sufficient for this deployment"
        found.append((label, with_note(each["reason"], by)))
    unseen, name = group["unseen"], "Fixtures not seen when accepted"
    if unseen is None:
        found.append((name, with_note("unknown", "there are too many results to compare")))
    elif unseen["count"]:
        names = ", ".join(each["name"] for each in unseen["fixtures"])
        found.append((name, with_note(count_of(unseen["count"], "fixture"), names)))
    return found


def _agents(summary: Summary) -> dict[str, Any]:
    """Return the panel of what the target's agents run now, with the result of each comparison."""
    results = {each["config_hash"]: each for each in (summary.regression or {}).get("baselines", ())}
    is_running = summary.row is not None and summary.row.finished_at is None
    rows = [
        (
            with_note(packets.name_configuration(each), short_id(each["config_hash"])),
            agent_count(each["agents"]),
            f"{each['share']:.1%}",
            "yes" if each["tested"] else "not yet" if is_running and each["config_hash"] in results else "no",
            _result(results.get(each["config_hash"])),
        )
        for each in summary.agents
    ]
    running = {each["config_hash"] for each in summary.agents}
    rows += [
        (with_note(packets.name_configuration(each), "no longer runs"), "-", "-", "yes", _result(each))
        for config_hash, each in results.items()
        if config_hash not in running
    ]
    golden = (summary.regression or {}).get("golden", {})
    if any(golden.values()):
        rows.append(("Golden results", "-", "-", "yes", _counts(golden)))
    others = summary.other_agents
    lead = f"{agent_count(others)} of the target {'runs' if others == 1 else 'run'} no known configuration of the "
    work = (summary.regression or {}).get("work", {})
    increase = work.get("increase_percent")
    return {
        "id": "agents",
        "title": "What agents run now",
        "lead": " ".join(
            [
                *([f"{lead}pipeline."] if others else []),
                *([] if increase is None else [f"The candidate needs {_more(increase)} than the baselines."]),
            ]
        ),
        "columns": ("Version", "Agents", "Share", "Tested", "Result"),
        "rows": rows,
        "empty": "No agent of the target runs a known configuration of this pipeline.",
    }


def _more(percent: float) -> str:
    """Return how much more or less work the candidate needs."""
    if not percent:
        return "neither more nor less work"
    return f"{abs(percent):g}% {'more' if percent > 0 else 'less'} work"


def _result(baseline: Mapping[str, Any] | None) -> str:
    return "-" if baseline is None else _counts(baseline["outcomes"])


def _counts(outcomes: Mapping[str, int]) -> str:
    """Return the number of fixtures with each outcome that occurs."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items() if count) or "-"


def _captures(packet: Packet) -> dict[str, Any]:
    rows = [
        (
            each["name"] if each["artifact_id"] is None
            else text_link(page_url(Fixture, "change", each["fixture_id"]), each["name"]),
            with_note("-", "the fixture was deleted") if each["artifact_id"] is None
            else text_link(page_url(Artifact, "change", each["artifact_id"]), "Open the artifact"),
        )
        for each in packet.captures[: page.GROUPS]
    ]  # fmt: skip
    left = len(packet.captures) - len(rows)
    return {
        "id": "captures",
        "title": "Captures that show differences",
        "lead": f"{count_of(left, 'further fixture')} {'shows' if left == 1 else 'show'} differences." if left else "",
        "columns": ("Fixture", "Artifact"),
        "rows": rows,
        "empty": "None.",
    }


def _removed(packet: Packet) -> dict[str, Any]:
    return {
        "id": "removed",
        "title": "Fixtures removed since the current deployment",
        "columns": ("Fixture", "Why", "When", "By"),
        "rows": [
            (each["name"], each["why"], relative_time(each["removed_at"]), each["removed_by"] or "-")
            for each in packet.removed_fixtures
        ],
        "empty": "None.",
    }


def _rollback(packet: Packet) -> dict[str, Any]:
    """Return the panel of what a rollback would restore."""
    back = packet.rollback
    if back["deployment_id"] is None:
        return {"id": "rollback", "title": "A rollback restores", "empty": back["reason"]}
    link = text_link(page_url(Deployment, "change", back["deployment_id"]), back["version"])
    return {
        "id": "rollback",
        "title": "A rollback restores",
        "lead": "Each agent gets back the configuration that it ran before. If that is not possible, the agent gets "
        "the configuration below.",
        "columns": ("Version", "Config hash"),
        "rows": [(link, short_id(back["config_hash"]))],
    }


def _explanations(packet: Packet) -> list[dict[str, Any]]:
    """Return a list with the panel of explanations for which the regression shows no difference, or an empty list."""
    rows = [(format_html("<code>{}</code>", each["group"][:12]), each["text"]) for each in packet.explanations]
    title = "Explanations of differences that the regression does not show"
    return [{"id": "explanations", "title": title, "columns": ("Group", "Explanation"), "rows": rows}] if rows else []
