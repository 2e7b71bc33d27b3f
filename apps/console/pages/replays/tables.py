"""Console pages of replays."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminSelectWidget

from apps.artifacts.api import commands
from apps.artifacts.models import Replay
from apps.artifacts.services import replays
from apps.console.frame import Act, ActContext, FoundBy, VisibleRowsFilter, site
from apps.console.frame.acts import permitted_by
from apps.console.frame.forms import ActForm
from apps.console.pages.artifacts import parts
from apps.console.pages.artifacts.running import RunningAdmin, may_read_records
from apps.console.pages.bisects.acts import BISECT_ARTIFACT
from apps.console.pages.fixtures.acts import KEEP_REPLAYED
from apps.console.pages.replays import differences, page
from apps.releases.models import ConfigBundle
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.compute_slot import compute_for

_VERSIONS = 100  # newest versions that the form offers


CANCEL = Act.of(
    commands.cancel,
    label="Cancel",
    done="{} canceled",
    explain="The dry run stops, and its status becomes failed. If you enter a reason, the replay's page shows it in "
    "the error.",
    icon="cancel",
    comment="optional",
)


AGAIN = Act(
    name="again",
    label="Run again",
    done="{} requested",
    explain="The same records run through the same version again. No side effects are performed.",
    run=lambda row, context: replays.repeat(row, actor=context.actor),
    form=ActForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="replay",
    applies=permitted_by(replays.check_repeat),
)


class _VersionForm(ActForm):
    version = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget,
        label="Version and parameters",
        help_text="For each version, the config bundle that was deployed last comes first. A stage without parameters "
        "may let every record pass unchanged.",
    )

    def offer(self, row: Any, held: frozenset[P]) -> None:
        """Offer the newest other versions, each with config bundles and with the parameters of the capture."""
        choices: list[tuple[str, str]] = []
        for offered in replays.offered_versions(row, _VERSIONS):
            version, bundles = offered.version, offered.config_bundles
            choices += [
                (
                    f"{version.pk}:{bundle.pk}",
                    f"{version} with {bundle}{', deployed last' if bundle == offered.deployed else ''}",
                )
                for bundle in bundles
            ]
            otherwise = f", and of {offered.fallback} where the capture has none" if offered.fallback else ""
            choices.append((str(version.pk), f"{version} with the parameters of the capture{otherwise}"))
        self.fields["version"].choices = choices  # type: ignore[attr-defined]  # a choice field


def _repeat_through(row: Replay, context: ActContext) -> Replay:
    version_id, _, bundle_id = context.values["version"].partition(":")
    version = replays.other_versions(row).get(pk=version_id)
    bundle = ConfigBundle.objects.get(pk=bundle_id, version=version) if bundle_id else None
    return replays.repeat(row, version=version, config_bundle=bundle, actor=context.actor)


OTHER_VERSION = Act(
    name="other",
    label="Other version",
    done="{} requested",
    explain="The same records run through another version of the pipeline, with the parameters of a config bundle or "
    "of the capture. No side effects are performed.",
    run=_repeat_through,
    form=_VersionForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="alt_route",
    applies=lambda row: AGAIN.applies(row) and replays.other_versions(row).exists(),
)


@admin.register(Replay, site=site)
class ReplayAdmin(RunningAdmin):
    tenant = "environment"
    section = "Replays"
    found_by = FoundBy("replay")
    related = (
        "environment__project__organization",
        "artifact__agent",
        "artifact__environment",
        "artifact__deployment__config_bundle",
        "version",
        "approval",
        "config_bundle",
        "fallback_config_bundle",
        "bisect__first_bad",
    )
    list_display = ("title", "status", "mode", "environment", "version", "requested_by", "created_at")
    narrow_columns = ("status", "created_at")
    sortable_by = ()
    list_filter = ("status", "mode", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "error", "version__name", "=id")
    acts = (AGAIN, OTHER_VERSION, BISECT_ARTIFACT, KEEP_REPLAYED, CANCEL)
    guarded = {"result": P.OPERATE_ENVIRONMENT}  # a divergence shows bytes of captured records
    live_template = "console/replay.html"

    def row_name(self, row: Replay) -> str:
        return f"Replay through {row.version}"

    def page_title(self, row: Replay) -> str:
        return f"Replay of an incident of {row.artifact.agent} through {row.version}"

    def summary(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show the progress or the result of the replay, what differs, its stages and its side effects."""
        may_read = may_read_records(request, row)
        records = differences.find_records(row, may_read=may_read, compute=compute_for(request))
        versions, comparable = page.versions(row, parts.number(request, "below"), may_read=may_read)
        return {
            **super().summary(request, row),
            "headline": page.replay_headline(row, records, may_read=may_read),
            "hidden_acts": () if row.finished_at else {AGAIN.label},
            "links": page.links(row, comparable),
            "bar": page.progress_bar(row),
            "divergence": differences.divergence(row, records),
            "stages": page.stages(row),
            "may_trace": may_read,
            "traced": parts.number(request, "trace"),
            "bisect": page.bisect_of(row),
            "facts": page.replay_facts(row),
            "panels": [*page.panels(row, may_read=may_read), versions],
        }

    def still(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        """Show the trace of a record and the comparison with another replay, to people who may see captured records."""
        panels: list[dict[str, Any]] = []
        if may_read_records(request, row):
            if (sequence := parts.number(request, "trace")) is not None:
                panels.append(page.trace(request, row, sequence))
            if (other := parts.identifier(request, "compare")) is not None:
                panels += page.comparison(row, other, compute=compute_for(request))
        return {"panels": panels}
