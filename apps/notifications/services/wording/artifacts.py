"""Messages about incidents and fixtures. They contain no captured records and no text from an agent's report."""

from __future__ import annotations

from apps.artifacts.models import Artifact, RegressionResult
from apps.artifacts.services.current_tests import FAILING_OUTCOMES
from apps.notifications.services.wording.content import Content, join_names, page_path, shorten
from apps.releases.models import Deployment, Regression
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent
from byteor.engine.counted import count_of

_NAMED = 3  # fixtures that the sentence names


def describe_incident(event: MessageEvent) -> Content | None:
    """Describe an incident that an agent captured. Returns None if the capture was deleted."""
    rows = Artifact.objects.select_related("agent", "version", "deployment__config_bundle__version")
    artifact = rows.filter(pk=event.resource_id).first()
    if artifact is None:
        return None
    pipeline, stage = event.data["pipeline"], event.data["stage"]
    where = f"on agent {artifact.agent} in {event.environment}"
    what = f"Stage {stage} stopped pipeline {pipeline}" if stage else f"Pipeline {pipeline} had an incident"
    what = what if pipeline else "An unknown pipeline had an incident"
    is_reopened = event.type == MessageType.INCIDENT_REOPENED
    again = " again. The incident was reopened, because it had not occurred for at least a week" if is_reopened else ""
    lines = [f"The agent ran {artifact.version}." if artifact.version else "The agent ran an unknown version."]
    if artifact.deployment is not None:
        lines.append(f"Deployment: {artifact.deployment.config_bundle.version}, {artifact.deployment.config_bundle}.")
    return Content(
        f"{what} {where}{again}.", page_path("artifacts_artifact", artifact.pk), "Open the capture", shorten(lines)
    )


def describe_current_failure(event: MessageEvent) -> Content | None:
    """Describe the fixtures that a current deployment fails, or state that its fixtures could not be tested.

    Returns None if the regression was deleted, or if its configuration is no longer current.
    """
    regression = Regression.objects.filter(pk=event.resource_id).first()
    if regression is None:
        return None
    current = Deployment.objects.filter(
        environment=regression.environment_id,
        pipeline=regression.pipeline,
        config_bundle=regression.config_bundle_id,
        is_current=True,
    )
    deployment = current.select_related("config_bundle__version").first()
    if deployment is None:
        return None
    results = RegressionResult.objects.filter(regression=regression, outcome__in=FAILING_OUTCOMES)
    names = list(results.order_by("fixture_name").values_list("fixture_name", flat=True).distinct())
    name = deployment.config_bundle.version
    if names:
        failed = f"{count_of(len(names), 'fixture')}: {join_names(names[:_NAMED], len(names))}"
        sentence = f"{name}, which runs in {event.environment}, fails {failed}."
    else:
        sentence = f"{name}, which runs in {event.environment}, could not be tested with its fixtures."
    return Content(
        sentence, page_path("releases_regression", regression.pk), "Open the regression", shorten(names[3:] and names)
    )
