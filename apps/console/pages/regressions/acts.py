"""The acts that test a draft, a version or a config bundle against the fixtures of its pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django import forms

from apps.artifacts.api.serializers.regressions import RequestRegressionSerializer
from apps.artifacts.models import Fixture
from apps.artifacts.services import fixtures
from apps.console.frame import relative_time, row_link, state_pill, with_note
from apps.console.frame.acts import Act, ActContext, permitted_by
from apps.console.frame.columns import actor_name, list_url
from apps.console.frame.forms import ActForm
from apps.console.frame.scope import with_scope
from apps.console.pages.deployments.phrases import agent_count
from apps.pipelines.models import Draft, Version
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regression_queue, regressions
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from byteor_cloud.computing.computations import CompiledVersion, compile_version
from byteor_cloud.database.large_columns import without_large

_BUNDLES = 20  # newest config bundles that the form offers; it also offers those that most agents run
_SHOWN = 5  # newest regressions of a candidate that its page lists

type Candidate = Draft | Version | ConfigBundle


def pipeline_of(row: Candidate) -> str | None:
    """Return the name of the candidate's pipeline; None for a draft whose plan has no name."""
    if isinstance(row, ConfigBundle):
        return row.version.name
    if isinstance(row, Version):
        return row.name
    name = Draft.objects.filter(pk=row.pk).values_list("plan__name", flat=True).first()
    return name if isinstance(name, str) else None


class _TestForm(ActForm):
    rules = RequestRegressionSerializer
    against = forms.MultipleChoiceField(
        required=False, label="Compare with", widget=forms.CheckboxSelectMultiple,
        help_text="At most five. Without a choice, the candidate is compared with the configurations that run on the "
        "most agents.",
    )  # fmt: skip

    def offer(self, row: Any, held: frozenset[P]) -> None:
        field: Any = self.fields["against"]
        field.choices = _configurations(row.environment, pipeline_of(row) or "")
        if not field.choices:
            del self.fields["against"]

    def body(self, cleaned: Any) -> dict[str, Any]:
        """Return the request body, without an empty choice."""
        return {name: value for name, value in super().body(cleaned).items() if value}


def _configurations(environment: Environment, pipeline: str) -> list[tuple[str, str]]:
    """Return config hashes of a pipeline and their names: first those that most agents run, then the newest others."""
    run = {each["config_hash"]: each["agents"] for each in regression_queue.running(environment, pipeline).tested}
    mine = without_large(
        ConfigBundle.objects.filter(environment=environment, version__name=pipeline).select_related("version")
    )
    running = {each.config_hash: each for each in mine.filter(config_hash__in=list(run)).order_by("pk")}
    newest = {each.config_hash: each for each in reversed(mine.order_by("-pk")[:_BUNDLES])}
    found = [(running[each], f", run by {agent_count(count)}") for each, count in run.items() if each in running]
    found += [(each, "") for each in reversed(newest.values()) if each.config_hash not in run]
    return [(each.config_hash, f"{each.version}, {each}{note}") for each, note in found]


def _request(name: str) -> Callable[[Candidate, ActContext], Regression]:
    def request(row: Candidate, context: ActContext) -> Regression:
        candidate: dict[str, Any] = {name: row}
        return regressions.request(
            environment=row.environment, compiled=context.prepared, actor=context.actor, **candidate, **context.values
        )

    return request


def _compile(row: Draft, context: ActContext) -> CompiledVersion:
    return context.compute(compile_version, row.plan)


TEST_VERSION = Act(
    name="test",
    label="Test against fixtures",
    done="{} requested",
    explain="The fixtures of the pipeline are replayed through this version. Fixtures without a golden result are also "
    "replayed through the configurations that run on the most agents, or through those that you choose. The results "
    "are compared. Nothing is deployed, and no side effects are performed. Verdicts of earlier regressions are "
    "used again.",
    run=_request("version"),
    form=_TestForm,
    needs=P.OPERATE_ENVIRONMENT,
    icon="rule",
    applies=permitted_by(lambda row: regressions.check_request(row.environment)),
)
TEST_BUNDLE = replace(
    TEST_VERSION, run=_request("config_bundle"), explain=TEST_VERSION.explain.replace("version", "config bundle")
)
TEST_DRAFT = replace(
    TEST_VERSION,
    run=_request("draft"),
    prepare=_compile,
    explain=TEST_VERSION.explain.replace("this version", "the saved plan of this draft"),
    applies=lambda row: row.spec_hash is not None and TEST_VERSION.applies(row),
)


def tests_panel(row: Candidate) -> dict[str, Any]:
    """Return the panel of a candidate's newest regressions, with a link to the fixtures of its pipeline."""
    pipeline, environment = pipeline_of(row), row.environment
    column = {Draft: "draft", Version: "version", ConfigBundle: "config_bundle"}[type(row)]
    mine = without_large(Regression.objects.filter(environment=environment, **{column: row}))
    rows = [
        (
            row_link(each),
            state_pill(each.status),
            with_note(relative_time(each.created_at), actor_name(each.requested_by)),
        )
        for each in mine.order_by("-pk")[:_SHOWN]
    ]
    panel: dict[str, Any] = {"title": "Regressions", "columns": ("Regression", "Status", "Requested"), "rows": rows}
    if pipeline is None:
        return panel | {"empty": "The plan has no name, so it belongs to no pipeline with fixtures."}
    count = fixtures.live(environment, pipeline).count()
    named = f"{count:,} fixture that has" if count == 1 else f"{count:,} fixtures that have"
    url = with_scope(f"{list_url(Fixture)}?{urlencode({'pipeline__exact': pipeline})}", environment)
    empty = (
        "No regressions in the last 90 days."
        if count
        else "To create a fixture, open an artifact or a replay of the pipeline."
    )
    return panel | {
        "lead": f"The pipeline {pipeline} has {named} not expired.",
        "url": url,
        "link": f"Fixtures of {pipeline}",
        "empty": empty,
    }
