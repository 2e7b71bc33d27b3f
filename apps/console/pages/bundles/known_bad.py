"""Console pages of the configurations that are known bad in an environment."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.text import Truncator

from apps.console.frame import ReadOnlyAdmin, VisibleRowsFilter, relative_time, row_link, short_id, site
from apps.console.frame.columns import act_url, environment_link, text_link
from apps.console.frame.console_user import ConsoleUser, may_operate
from apps.console.pages.bundles.tables import CLEAR
from apps.releases.models import ConfigBundle, KnownBad

_HASH = 18  # characters that are shown instead of a name: the start of a hash and “…”


@admin.register(KnownBad, site=site)
class KnownBadAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section = "Config bundles"
    menu, noun, nouns = "Known bad", "known bad configuration", "known bad configurations"
    related = ("environment__project__organization",)
    list_display = ("bundle", "environment", "reason", "since", "config_hash")
    narrow_columns = ("reason", "since")
    list_filter = (("environment", VisibleRowsFilter),)
    search_fields = ("config_hash", "reason")

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        same = ConfigBundle.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
        newest = Subquery(same.order_by("-pk").values("name")[:1])
        return super().narrow(queryset, console_user).annotate(bundle_name=newest)  # type: ignore[no-any-return]

    def page_title(self, row: Any) -> str:
        return f"Known bad configuration {self.bundle(row)}"

    @admin.display(description="Config bundle")
    def bundle(self, row: Any) -> str:
        """Return the name of the newest config bundle with the configuration; its short hash if there is none."""
        return str(row.bundle_name or Truncator(row.config_hash).chars(_HASH))

    def summary(self, request: HttpRequest, row: KnownBad) -> dict[str, Any]:
        """Show why the configuration is known bad, its config bundle, and where to clear the state."""
        bundles = ConfigBundle.objects.filter(environment=row.environment_id, config_hash=row.config_hash)
        newest = bundles.select_related("version").only("name", "version__name", "version__number").last()
        facts = [
            ("Config bundle", row_link(newest, f"{newest} of {newest.version}" if newest else None)),
            ("Environment", environment_link(row.environment)),
            ("Reason", row.reason),
            ("Since", relative_time(row.since)),
            ("Config hash", short_id(row.config_hash)),
        ]
        if newest is not None and may_operate(request, row.environment):
            facts.append(("To deploy the configuration again", text_link(act_url(newest, CLEAR.name), CLEAR.label)))
        return {"facts": facts}
