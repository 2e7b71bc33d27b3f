"""The panel of a deployment's page about the replay gate: its regression, and who accepted which difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from apps.artifacts.services.packets import Gate, plan_gate
from apps.artifacts.services.regression_details import first_groups
from apps.artifacts.services.regression_headline import Counts, counted_results, counts_of, describe_result
from apps.console.frame import state_pill, with_note
from apps.console.frame.columns import act_url, row_url, time_of_deadline
from apps.console.frame.console_user import console_user_of
from apps.console.pages.approvals.accepting import MAX_GROUPS
from apps.console.pages.approvals.deciding import may_decide
from apps.console.pages.deployments.phrases import agent_count
from apps.console.pages.regressions import page
from apps.console.pages.regressions.results import baseline_bundles, link_baseline, links_to
from apps.releases.models import AcceptedDifference, Deployment, Regression
from apps.releases.services import acceptances, replay_gate
from apps.tenancy.permissions import Permission as P
from byteor.engine.counted import count_of
from byteor.engine.machines import UNFINISHED_REGRESSION, ApprovalStatus, DeploymentStatus
from byteor.engine.replay_gate import GateMode
from byteor_cloud.database.together import Plan, together

GROUPS = 20  # groups that the panel lists
_REASON = 200  # characters of the reason of an acceptance
_MODES = {
    GateMode.WARN: "warns: the result does not block the deployment",
    GateMode.REQUIRE: "required: each difference must be accepted",
}


@dataclass(frozen=True, slots=True)
class Tested:
    """The data of a regression for the page: the gate's evaluation, the number of results, and the first groups.

    ``accepted`` are the accepted differences of these groups, and ``links`` are links to the baselines by config hash.
    """

    gate: Gate
    row: Regression
    counts: Counts
    groups: list[dict[str, Any]]
    accepted: list[AcceptedDifference]
    links: Mapping[str, str]


def plan_tested(request: HttpRequest, deployment: Deployment) -> Plan[Tested | None]:
    """Return the ``Plan`` for the regression that the replay gate evaluates; None without one.

    For a person who may decide on the deployment's pending approval, ``gate`` has the first unaccepted groups, at most
    ``MAX_GROUPS``.
    """
    if deployment.regression_id is None:
        return None
    approval = deployment.approval
    may = approval is not None and may_decide(approval, console_user_of(request))
    offered = MAX_GROUPS if may and approval is not None and approval.status == ApprovalStatus.PENDING else 0
    gate, (counted, groups, accepted, bundles) = yield from together(
        plan_gate(deployment, unaccepted=offered), _plan_groups(deployment)
    )
    if gate.row is None:
        return None
    deployment.regression = gate.row  # saves a query
    return Tested(gate, gate.row, counts_of(counted), groups, accepted, links_to(bundles))


def _plan_groups(deployment: Deployment) -> Plan[tuple[list[Any], list[Any], list[Any], list[Any]]]:
    """Return the ``Plan`` for the counted results, first groups, their acceptances, and the baselines' bundles."""
    rows = Regression.objects.filter(deployments=deployment).annotate(first=first_groups(GROUPS))
    found, counted = yield [
        rows.only("environment", "config_hash", "baselines"), counted_results(deployment.regression_id)
    ]  # fmt: skip
    if not found:
        return counted, [], [], []
    [row] = found
    accepted, bundles = yield [
        acceptances.accepted_differences(row, [each["id"] for each in row.first], since=deployment.created_at),
        baseline_bundles([row]),
    ]
    return counted, row.first, accepted, bundles


def is_running(row: Regression | None) -> bool:
    """Return whether there is a regression that has not finished."""
    return row is not None and row.status in UNFINISHED_REGRESSION


def gate_panel(request: HttpRequest, deployment: Deployment, tested: Tested | None) -> dict[str, Any] | None:
    """Return the panel of the replay gate; None if the gate was off when the deployment was requested."""
    if not replay_gate.is_tested(deployment):
        return None
    panel: dict[str, Any] = {"id": "gate", "title": "Replay gate", "wide": True, "body": "console/replay_gate.html"}
    if tested is None:
        return panel | {"headline": "The regression was deleted.", "facts": _facts(deployment, None)}
    row, count = tested.row, tested.gate.group_count
    panel |= {
        "url": row_url(row),
        "link": "Regression",
        "status": state_pill(row.status),
        "headline": describe_result(row, tested.counts, count),
        "is_vacuous": row.vacuous and not is_running(row),
        "bar": page.progress_bar(row),
        "facts": _facts(deployment, row),
    }
    if is_running(row) or not count:
        return panel
    states = _Acceptances(deployment, tested)
    explained = {each["group"]: each["text"] for each in deployment.explain}
    agents = {each["config_hash"]: each for each in row.baselines}
    rows = [
        (
            page.name_group(each),
            states.describe(each),
            f"{each['count']:,}",
            _baselines(each, tested.links, agents),
            explained.get(each["id"], "-"),
        )
        for each in tested.groups
    ]
    rest = count - len(tested.groups)
    return panel | {
        "columns": ("Difference", "Accepted", "Count", "Compared with", "Explanation"),
        "rows": rows,
        "rest": f"{count_of(rest, 'more group')} of differences." if rest else "",
        "accept": _accept_url(request, deployment, row),
        "note": _own(request, deployment),
    }


def _facts(deployment: Deployment, row: Regression | None) -> list[tuple[str, Any]]:
    policy = deployment.policy
    needed, limit = policy.replay_gate_min_fixtures, policy.max_work_increase_percent
    known = 0 if row is None else sum(count for word, count in row.outcomes.items() if word != "not_tested")
    found = [
        ("Gate", _MODES[policy.replay_gate]),
        ("Work", "" if row is None or is_running(row) else page.describe_work(row)),
        ("Permitted work", "" if limit is None else f"at most {limit}% more than the baselines"),
        ("Verdicts", f"{known:,}, at least {needed:,} required" if needed else ""),
        ("Override", f"“{deployment.replay_gate_override}”" if deployment.replay_gate_override else ""),
        ("If nothing happens", _deadline(deployment, row)),
    ]
    return [(label, value) for label, value in found if value]


def _deadline(deployment: Deployment, row: Regression | None) -> str:
    """Return when the deployment fails because of the gate, or when its request for approval expires.

    Says so if the deadlines are paused. Returns "" if the gate cannot block the deployment now, or without a deadline.
    """
    if not replay_gate.is_governed(deployment):
        return ""
    if is_running(row):
        return "deadlines are paused until the regression has finished"
    if deployment.status == DeploymentStatus.APPROVED:
        until = deployment.gate_until
        return "" if until is None else format_html("the deployment fails {}", time_of_deadline(until))
    approval = deployment.approval
    return "" if approval is None else format_html("the request expires {}", time_of_deadline(approval.expires_at))


def _baselines(group: Mapping[str, Any], links: Mapping[str, str], agents: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what a group differs from: the golden result, and baselines with the number and share of their agents."""
    found = []
    for each in group["baselines"]:
        run = agents.get(each["config_hash"])
        note = "" if run is None else f"{agent_count(run['agents'])}, {run['share']:.1%}"
        found.append((with_note(link_baseline(links, each["config_hash"]), note),))
    return format_html_join("", "<div>{}</div>", found)


class _Acceptances:
    """The acceptances of groups, and whether they count for a deployment."""

    def __init__(self, deployment: Deployment, tested: Tested) -> None:
        self._by_group = page.group_acceptances(tested.accepted)
        differences = tested.gate.differences if deployment.status in replay_gate.WAITING else ()
        self._open = {each.group for each in differences if each.acceptance_id is None}

    def describe(self, group: Mapping[str, Any]) -> str:
        """Return whether the group is accepted, by whom and why."""
        given = self._by_group.get(group["id"], ())
        texts = page.describe_acceptances(given, limit=_REASON)
        if page.is_accepted(group, given) and group["id"] not in self._open:
            return format_html("{}{}", state_pill("accepted"), texts)
        why = with_note("", "The acceptances so far are not sufficient for this deployment.") if given else ""
        return format_html("{}{}{}", state_pill("not accepted"), texts, why)


def _accept_url(request: HttpRequest, deployment: Deployment, row: Regression) -> str | None:
    """Return the URL of the form that accepts differences; None if the person may not do so for the deployment now."""
    may = P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(deployment.environment)
    listed = deployment.reviewers if deployment.policy.approvals_required else []
    may = may and (not listed or str(request.user.pk) in listed)
    waits = deployment.status in replay_gate.WAITING and row.error is None
    return act_url(row, "accept") if may and waits and not _own(request, deployment) else None


def _own(request: HttpRequest, deployment: Deployment) -> str:
    """Return why the requester of the deployment cannot accept its differences.

    Returns "" for others, for a requester who may accept them, and if the status is not in ``replay_gate.WAITING``.
    """
    is_own = deployment.requester_id == request.user.pk and not replay_gate.may_accept_own(deployment)
    if not is_own or deployment.status not in replay_gate.WAITING:
        return ""
    return acceptances.SELF_ACCEPTANCE
