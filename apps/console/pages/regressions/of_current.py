"""Warnings that what runs now did not pass its golden fixtures, for the pages of environments and of deployments."""

from __future__ import annotations

from django.utils.html import format_html

from apps.artifacts.services.current_tests import CurrentFailure
from apps.console.frame.columns import page_url, text_link
from apps.releases.models import Deployment, Regression

TITLE = "What runs now did not pass its fixtures"
_NAMED, _NAME = 3, 60  # fixtures that are named, and characters of a name


def describe_failure(found: CurrentFailure) -> str:
    """Return the names of the failing fixtures, or that there is no result, and a link to the regression."""
    link = text_link(page_url(Regression, "change", found.regression_id), "Open the regression")
    if not found.names:
        return format_html("The regression could not be completed. {}", link)
    named = [name if len(name) <= _NAME else f"{name[:_NAME]}…" for name in found.names[:_NAMED]]
    more = f" and {found.count - len(named):,} more" if found.count > len(named) else ""
    return format_html("{}{}. {}", ", ".join(named), more, link)


def deployment_link(found: CurrentFailure) -> str:
    """Return the name of the pipeline as a link to its current deployment."""
    return text_link(page_url(Deployment, "change", found.deployment_id), found.pipeline)
