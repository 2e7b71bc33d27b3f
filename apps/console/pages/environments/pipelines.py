"""The pipelines panel of an environment's page: what runs, what is under way, and how the neighbors differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import JSONField, Q, Subquery, Value
from django.db.models.expressions import Combinable, OuterRef
from django.db.models.functions import JSONObject
from django.utils.html import format_html, format_html_join

from apps.artifacts.services.current_tests import CurrentFailure, newest_test, read_failures
from apps.console.frame import relative_time, row_link, state_pill, with_note
from apps.console.frame.columns import act_url, list_url, page_url, text_link
from apps.console.frame.next_steps import returning
from apps.console.frame.scope import with_scope
from apps.console.pages.bundles.copying import COPY_BUNDLE
from apps.console.pages.deployments.phrases import agent_count
from apps.console.pages.environments.surroundings import Neighbor, Surroundings
from apps.console.pages.organizations.acts import CREATE_ENVIRONMENT
from apps.console.pages.series import DAY, MARKS
from apps.pipelines.models import Draft
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import failures
from apps.releases.services.matrix import UNFINISHED
from apps.tenancy.models import Environment
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.ids import smallest_uuid7

MAX_DEPLOYMENTS = 100  # with more current and unfinished deployments, the panel may be incomplete
_CAUSES = 5
_NOTHING: Combinable = Value(None, output_field=JSONField())


@dataclass(frozen=True, slots=True)
class Deployments:
    """The deployments that the page shows.

    ``marked`` are the newest deployments that were requested in the last day and have a ``served_at``. ``failing`` are
    the current ones that did not pass their golden fixtures. ``causes`` has the causes of agents' failures, if asked
    for.
    """

    current: dict[str, Deployment] = field(default_factory=dict)
    under_way: defaultdict[str, list[Deployment]] = field(default_factory=lambda: defaultdict(list))
    marked: list[Deployment] = field(default_factory=list)
    failing: list[CurrentFailure] = field(default_factory=list)
    causes: list[dict[str, Any]] = field(default_factory=list)
    is_cut: bool = False  # whether more than ``MAX_DEPLOYMENTS`` are current or unfinished


def read_deployments(environment: Environment, around: Surroundings, *, now: datetime, has_causes: bool) -> Deployments:
    """Return the deployments that the page shows.

    ``has_causes``: whether to aggregate the failures of agents as well.
    """
    here = Deployment.objects.filter(environment=environment)
    shown = here.filter(Q(is_current=True) | Q(status__in=UNFINISHED)).order_by("-is_current", "pk")
    recent = here.filter(pk__gte=smallest_uuid7(now - DAY)).exclude(served_at=None).order_by("-pk")
    keys = shown.values("pk")[: MAX_DEPLOYMENTS + 1].union(recent.values("pk")[:MARKS])
    rows = Deployment.objects.filter(pk__in=keys).select_related("config_bundle__version").order_by("pk")
    causes = failures.main_causes(_CAUSES) if has_causes else _NOTHING
    found, listed = Deployments(), 0
    for row in without_large(rows).annotate(
        newest=newest_test(), causes=causes, previous=_current_in(around.previous), next=_current_in(around.next)
    ):
        row.environment = environment  # saves a query
        if row.served_at is not None and row.created_at >= now - DAY:
            found.marked.append(row)
        if not row.is_current and row.status not in UNFINISHED:
            continue
        listed += 1
        found.causes.extend(row.causes or ())
        if row.is_current:
            found.current[row.pipeline] = row
        else:
            found.under_way[row.pipeline].append(row)
    tests = [(row.pk, name, row.newest) for name, row in sorted(found.current.items())]  # type: ignore[attr-defined]  # an annotation
    return Deployments(
        found.current,
        found.under_way,
        found.marked[-MARKS:],
        read_failures(tests),
        found.causes,
        listed > MAX_DEPLOYMENTS,
    )


def _current_in(neighbor: Neighbor | None) -> Combinable:
    """Return an expression for the current deployment of the pipeline in another environment; null without one."""
    if neighbor is None:
        return _NOTHING
    rows = Deployment.objects.filter(environment=neighbor.id, pipeline=OuterRef("pipeline"), is_current=True)
    found = JSONObject(id="pk", config_hash="config_hash", number="config_bundle__version__number")
    return Subquery(rows.values(found=found)[:1])


def pipelines_panel(
    environment: Environment,
    around: Surroundings,
    found: Deployments,
    running: Mapping[str, int],
    *,
    may_deploy: bool,
    may_add: bool,
) -> dict[str, Any]:
    """Return the panel. ``running`` is the number of agents by the hash of the bundle that they run.

    ``may_deploy`` and ``may_add`` state whether the person may deploy to the environment and create environments.
    """
    before, following = around.previous, around.next
    panel = {
        "title": "Pipelines",
        "id": "pipelines",
        "wide": True,
        "lead": f"More than {MAX_DEPLOYMENTS} deployments are current or unfinished. Some may be missing."
        if found.is_cut
        else "",
        "columns": (
            "Pipeline",
            "Runs",
            "Since",
            "Agents",
            "Under way",
            *(f"In {each.name}" for each in (before, following) if each is not None),
        ),
        "rows": [
            (
                _name(pipeline, found, may_edit=may_deploy, may_copy=may_deploy and may_add and following is None),
                *_current(row := found.current.get(pipeline), running),
                _under_way(found.under_way.get(pipeline, ())),
                *([_compare(row, getattr(row, "previous", None))] if before else []),
                *([_next(row, following, may_copy=may_deploy)] if following else []),
            )
            for pipeline in sorted({*found.current, *found.under_way})
        ],
        "empty": "No pipeline is deployed, and no deployment is under way.",
        "url": with_scope(f"{list_url(Deployment)}?environment__id__exact={environment.pk}", environment),
        "link": "All deployments",
    }
    url = page_url(ConfigBundle, "choose", environment.pk)
    return {**panel, "button": {"text": "Deploy", "icon": "rocket_launch", "url": url}} if may_deploy else panel


def _name(pipeline: str, found: Deployments, *, may_edit: bool, may_copy: bool) -> str:
    """Return the pipeline's name, with the links that the person may use.

    The first leads to the draft of the newest version that is current or under way, if its id is known. The second
    creates an environment, and then leads to the form that copies the current config bundle to it.
    """
    current, links = found.current.get(pipeline), []
    shown = [*found.under_way.get(pipeline, ()), *filter(None, [current])]
    version = max((row.config_bundle.version for row in shown), key=lambda each: each.number)
    if may_edit and version.draft_id is not None:
        links.append((page_url(Draft, "edit", version.draft_id), f"Edit plan of {pipeline}", "Edit plan"))
    if may_copy and current is not None:
        create = act_url(current.environment.project, CREATE_ENVIRONMENT.name)
        url = returning(create, act_url(current.config_bundle, COPY_BUNDLE.name))
        links.append((url, f"Copy to a new environment: {current.config_bundle.version}", "Copy to a new environment"))
    made = format_html_join(" ", '<a class="text-link" href="{}" aria-label="{}">{}</a>', links)
    return format_html('{}<div class="cell-acts">{}</div>', pipeline, made) if links else pipeline


def _current(row: Deployment | None, running: Mapping[str, int]) -> tuple[Any, ...]:
    if row is None:
        return ("nothing", "-", "-")
    count = running.get(row.bundle_hash or "", 0)
    return (
        with_note(row_link(row, f"v{row.config_bundle.version.number}"), str(row.config_bundle)),
        with_note(relative_time(row.activated_at), f"by {row.requested_by}"),
        # Late joiners may run the bundle as well.
        f"{count:,} of {agent_count(max(count, row.target_count))}",
    )


def _under_way(rows: Sequence[Deployment]) -> str:
    if not rows:
        return "-"
    first = min(rows, key=lambda row: UNFINISHED.index(row.status))
    more = f"and {len(rows) - 1} more" if len(rows) > 1 else ""
    version = row_link(first, f"v{first.config_bundle.version.number}")
    return format_html("{} {}", state_pill(first.status), with_note(version, more))


def _compare(row: Deployment | None, other: Mapping[str, Any] | None) -> str:
    """Return which version of the pipeline another environment runs, and whether its configuration is the same.

    Returns "-" if the page's environment does not run the pipeline, and "nothing" if only the other one does not.
    """
    if row is None:
        return "-"
    if other is None:
        return "nothing"
    is_same = other["config_hash"] == row.config_hash
    link = text_link(page_url(Deployment, "change", other["id"]), f"v{other['number']}")
    return format_html("{} {}", link, "same" if is_same else state_pill("differs"))


def _next(row: Deployment | None, following: Neighbor, *, may_copy: bool) -> str:
    """Return what the next environment runs, with a link that copies the config bundle there.

    There is no link without ``may_copy``, without a current deployment here, or if the configuration is the same there.
    """
    other: Mapping[str, Any] | None = getattr(row, "next", None)
    text = _compare(row, other)
    if row is None or not may_copy or (other is not None and other["config_hash"] == row.config_hash):
        return text
    return format_html(
        '{} <a class="text-link copy-on" href="{}" aria-label="Copy {} to {}">Copy to {}</a>',
        text, act_url(row.config_bundle, COPY_BUNDLE.name), row.config_bundle.version, following.name, following.name,
    )  # fmt: skip
