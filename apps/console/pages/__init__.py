"""The pages of the console, a module or folder for each thing shown. To import this package registers all of them.

The order of the imports is the order of lists in the menu, of what the search finds, and of counts on a row's page.
"""

# ruff: noqa: I001, F401
from apps.console.pages import audit, webhooks
from apps.console.pages.organizations import tables as organizations
from apps.console.pages.environments import tables as environments
from apps.console.pages.people import tables as people
from apps.console.pages.credentials import tables as credentials
from apps.console.pages import api_requests
from apps.console.pages.pipelines import drafts, versions
from apps.console.pages.agents import tables as agents
from apps.console.pages.approvals import tables as approvals
from apps.console.pages.bundles import tables as bundles
from apps.console.pages.deployments import tables as deployments
from apps.console.pages.bundles import known_bad
from apps.console.pages.approvals import decisions
from apps.console.pages.deployments import records
from apps.console.pages.artifacts import tables as artifacts
from apps.console.pages.replays import tables as replays
from apps.console.pages.bisects import tables as bisects
from apps.console.pages.artifacts import blobs
from apps.console.pages import jobs

from apps.console.frame.site import site

__all__ = ["site"]
