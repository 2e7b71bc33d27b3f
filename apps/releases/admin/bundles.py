"""Config bundles in the console."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet

from apps.releases.models import ConfigBundle, KnownBad
from apps.releases.services import bundles
from apps.tenancy.console import Act, ReadOnlyAdmin, VisibleRowsFilter, site, state_pill
from apps.tenancy.console.console_user import ConsoleUser
from apps.tenancy.permissions import Permission as P


@admin.register(ConfigBundle, site=site)
class ConfigBundleAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Releases", "inventory_2"
    related = ("environment__project__organization", "version")
    list_display = ("name", "version", "bad", "environment", "tuning_profile", "config_hash", "created_at")
    list_filter = ("tuning_profile", ("environment", VisibleRowsFilter))
    search_fields = ("name", "version__name", "config_hash", "created_by", "=id")
    acts = (
        Act(
            name="clear",
            label="Clear known bad",
            explain="The configuration can be deployed and restored by rollbacks again.",
            run=lambda row, context: bundles.clear_known_bad(row, reason=context.comment, actor=context.actor),
            needs=P.OPERATE_ENVIRONMENT,
            icon="restart_alt",
            comment="required",
            applies=lambda row: row.known_bad,
        ),
    )

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        bad = KnownBad.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
        return super().narrow(queryset, console_user).annotate(known_bad=Exists(bad))  # type: ignore[no-any-return]

    @admin.display(description="Known bad")
    def bad(self, row: Any) -> str:
        return state_pill("known bad") if row.known_bad else "-"
