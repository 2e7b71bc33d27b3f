"""The pages of the console, a module or folder for each thing shown. To import this package registers all of them.

The order of the imports is the order of lists in the menu, and of tiles and panels on the overview.
"""

# ruff: noqa: I001
from apps.console.pages import organizations
from apps.console.pages import pipelines
from apps.console.pages import agents
from apps.console.pages import approvals
from apps.console.pages.bundles import tables as bundles
from apps.console.pages.deployments import tables as deployments
from apps.console.pages import records
from apps.console.pages.artifacts import tables as artifacts
from apps.console.pages import jobs

from apps.console.frame.site import site

__all__ = [
    "agents", "approvals", "artifacts", "bundles", "deployments", "jobs", "organizations", "pipelines", "records",
    "site",
]  # fmt: skip
