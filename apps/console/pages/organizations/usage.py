"""The panels of an organization's usage, and the act that sets its quotas."""

from __future__ import annotations

from typing import Any

from django import forms
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from apps.console.frame.acts import Act, ActContext
from apps.console.frame.forms import ActForm
from apps.tenancy.models import Organization, Quota
from apps.tenancy.permissions import Permission
from apps.tenancy.services import quotas
from apps.tenancy.services.usage import read_usage

_TITLES = {
    Quota.AGENTS: "Agents",
    Quota.STORED_BYTES: "Stored bytes",
    Quota.CAPTURES_PER_DAY: "Captures today",
    Quota.DRAFTS: "Drafts",
}
_LABELS = {**_TITLES, Quota.CAPTURES_PER_DAY: "Captures in a day"}
_ALMOST = 0.8  # if usage reaches this share of a quota, the bar warns
COLUMNS = {
    "agents": "Peak agents",
    "heartbeats": "Heartbeats",
    "uploaded_bytes": "Uploaded",
    "stored_bytes": "Peak storage",
    "replays": "Replays",
    "work": "Replay work units",
}


def shown_amount(name: str, count: int | None) -> str:
    """Return a count with separators, or a number of bytes with a unit such as KB; "-" without a count."""
    if count is None:
        return "-"
    return filesizeformat(count) if name.endswith("_bytes") else f"{count:,}"


def usage_panels(organization: Organization) -> list[dict[str, Any]]:
    """Return a panel with a bar for each quota, and a panel with the usage of each of the last months."""
    usage = read_usage(organization)
    bars = [quota_bar(quota, usage.used[quota], usage.limits[quota]) for quota in Quota]
    return [
        {"title": "Usage", "body": "console/usage.html", "bars": bars, "wide": True},
        {
            "title": "Usage by month",
            "wide": True,
            "url": reverse("admin:usage"),
            "link": "All organizations",
            "columns": ("Month", *COLUMNS.values()),
            "rows": [
                (f"{each['month']:%B %Y}", *(shown_amount(name, each[name]) for name in COLUMNS))
                for each in usage.by_month
            ],
        },
    ]


def quota_bar(quota: Quota, used: int, limit: int | None) -> dict[str, Any]:
    """Return the data of a bar that compares the usage with the quota."""
    shown = shown_amount(quota, used)
    if limit is None:
        return {"title": _TITLES[quota], "text": f"{shown}, no quota"}
    share = used / limit if limit else 1.0
    return {
        "title": _TITLES[quota],
        "text": f"{shown} of {shown_amount(quota, limit)}",
        "tone": "bad" if used >= limit else "warn" if share >= _ALMOST else "good",
        "percent": round(100 * min(share, 1)),
    }


class _QuotasForm(ActForm):
    """A form with a field for each quota."""

    def offer(self, row: Organization, held: frozenset[Permission]) -> None:
        usage = read_usage(row)
        for quota in Quota:
            used = shown_amount(quota, usage.used[quota])
            unit = "In bytes. " if quota is Quota.STORED_BYTES else ""
            self.fields[quota] = forms.IntegerField(
                required=False, min_value=0, max_value=quotas.MAX_LIMIT, widget=UnfoldAdminIntegerFieldWidget,
                label=_LABELS[quota], initial=usage.limits[quota], help_text=f"{unit}Used now: {used}.",
            )  # fmt: skip


def _set_quotas(organization: Organization, context: ActContext) -> object:
    limits, before = {quota: context.values.get(quota) for quota in Quota}, read_usage(organization).limits
    quotas.set_quotas(organization, limits, actor=context.actor)
    return organization if limits != before else False


SET_QUOTAS = Act(
    name="set_quotas",
    label="Set quotas",
    done="Quotas of {} changed",
    explain="Requests that would exceed a quota are refused. Existing data stays. Quotas do not limit reads, "
    "heartbeats, reports, rollbacks or deletions. An empty field means no quota.",
    run=_set_quotas,
    form=_QuotasForm,
    needs=None,
    only_operators=True,
    icon="data_usage",
)
