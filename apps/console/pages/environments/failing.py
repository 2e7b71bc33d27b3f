"""The panel of an environment's page that shows which current deployments did not pass their golden fixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.artifacts.services.current_tests import CurrentFailure
from apps.console.pages.regressions.of_current import TITLE, deployment_link, describe_failure


def failing_panels(found: Sequence[CurrentFailure]) -> list[dict[str, Any]]:
    """Return a list with the panel, or an empty list if ``found`` is empty."""
    if not found:
        return []
    rows = [(deployment_link(each), describe_failure(each)) for each in found]
    return [{"title": TITLE, "wide": True, "id": "failing", "columns": ("Pipeline", "Failing fixtures"), "rows": rows}]
