"""The list of config bundles from which people choose one to deploy to an environment."""

from __future__ import annotations

from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils.html import format_html

from apps.console.frame import relative_time, row_link, with_note
from apps.console.frame.columns import list_url, page_url
from apps.console.frame.next_steps import returning
from apps.pipelines.models import Draft, Version
from apps.releases.models import ConfigBundle
from apps.tenancy.models import Environment
from byteor_cloud.database.large_columns import without_large

_SHOWN = 50


def find_newest_bundles(versions: QuerySet[Any]) -> list[ConfigBundle]:
    """Return the newest config bundle of each pipeline of these versions, in each of their environments."""
    of_pipeline = ConfigBundle.objects.filter(
        environment=OuterRef("environment"),
        version__environment=OuterRef("environment"),
        version__name=OuterRef("name"),
    )
    pairs = versions.annotate(newest=Subquery(of_pipeline.order_by("-pk").values("pk")[:1])).values("newest")
    rows = ConfigBundle.objects.filter(pk__in={row["newest"] for row in pairs} - {None})
    return list(without_large(rows.select_related("version", "environment__project__organization")).order_by("-pk"))


def choices_panel(environment: Environment, bundles: QuerySet[Any], *, back: str) -> dict[str, Any]:
    """Return the panel of the environment's newest config bundles, each with a link to the form that deploys it.

    Without config bundles, return the newest versions, each with a link to the form for a config bundle, from which
    people return to the page ``back``.
    """
    rows = list(bundles.order_by("-pk")[: _SHOWN + 1])
    if not rows:
        return _versions_panel(environment, back)
    return {
        "title": f"Choose a config bundle to deploy to {environment}",
        "lead": f"These are the newest {_SHOWN} config bundles. To deploy an older one, open its page."
        if len(rows) > _SHOWN
        else "",
        "columns": ("Config bundle", "Version", "Created", ""),
        "rows": [
            (
                with_note(row_link(row), "known bad here" if row.known_bad else ""),
                row_link(row.version),
                with_note(relative_time(row.created_at), row.created_by),
                format_html(
                    '<a class="text-link" href="{}" aria-label="Deploy {}">Deploy</a>',
                    page_url(ConfigBundle, "deploy", row.pk), f"{row.version}, {row}",
                ),
            )
            for row in rows[:_SHOWN]
        ],
        "url": f"{list_url(ConfigBundle)}?environment__id__exact={environment.pk}",
        "link": "All config bundles",
    }  # fmt: skip


def _versions_panel(environment: Environment, back: str) -> dict[str, Any]:
    versions = without_large(Version.objects.filter(environment=environment)).order_by("-pk")[:_SHOWN]
    panel: dict[str, Any] = {
        "title": f"No config bundles in {environment} yet",
        "lead": "A config bundle is a version with its runtime configuration. After you have created one, you can "
        "deploy it here.",
        "columns": ("Version", "Created", ""),
        "rows": [
            (
                row_link(row),
                with_note(relative_time(row.created_at), row.created_by),
                format_html(
                    '<a class="text-link" href="{}" aria-label="Create a config bundle for {}">Create a config bundle'
                    "</a>",
                    returning(page_url(ConfigBundle, "new", row.pk), back), row,
                ),
            )
            for row in versions
        ],
        "empty": "There is no version either. To create one, promote a draft.",
        "url": f"{list_url(Draft)}?environment__id__exact={environment.pk}",
        "link": "Drafts",
    }  # fmt: skip
    if not panel["rows"]:
        url = f"{page_url(Draft, 'new')}?environment={environment.pk}"
        panel["button"] = {"text": "New draft", "icon": "add", "url": url}
    return panel
