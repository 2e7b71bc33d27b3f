"""The panel of an environment's page that shows which current deployments fail their golden fixtures."""

from __future__ import annotations

from typing import Any

from apps.artifacts.services.current_tests import find_failures
from apps.console.pages.regressions.of_current import TITLE, deployment_link, describe_failure
from apps.releases.models import Deployment
from apps.tenancy.models import Environment


def failing_panels(environment: Environment) -> list[dict[str, Any]]:
    """Return the panel in a list, which is empty if no current deployment fails a fixture."""
    found = find_failures(Deployment.objects.filter(environment=environment))
    if not found:
        return []
    rows = [(deployment_link(each), describe_failure(each)) for each in found]
    return [{"title": TITLE, "wide": True, "columns": ("Pipeline", "Failing fixtures"), "rows": rows}]
