"""The pages of the console, with a module or folder for each kind of row. Importing this package registers them all.

The import order determines the order of lists in the menu, of search results, and of row counts on a row's page. Pages
that are not imported here by name come last.
"""

# ruff: noqa: I001, F401
from importlib import import_module
from pkgutil import walk_packages

import apps.console.pages.audit
import apps.console.pages.webhooks
import apps.console.pages.chat_webhooks
import apps.console.pages.organizations.tables
import apps.console.pages.environments.tables
import apps.console.pages.people.tables
import apps.console.pages.credentials.tables
import apps.console.pages.api_requests
import apps.console.pages.pipelines.drafts
import apps.console.pages.pipelines.versions
import apps.console.pages.agents.tables
import apps.console.pages.approvals.tables
import apps.console.pages.bundles.tables
import apps.console.pages.deployments.tables
import apps.console.pages.bundles.known_bad
import apps.console.pages.approvals.decisions
import apps.console.pages.deployments.records
import apps.console.pages.artifacts.tables
import apps.console.pages.replays.tables
import apps.console.pages.bisects.tables
import apps.console.pages.fixtures.tables
import apps.console.pages.regressions.tables
import apps.console.pages.artifacts.blobs
import apps.console.pages.jobs

from apps.console.frame.site import site

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)

__all__ = ["site"]
