"""The page with the usage of each organization in a month, and the sums of the last months."""

from __future__ import annotations

from datetime import date
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from apps.console.frame.columns import row_link
from apps.console.frame.console_user import console_user_of
from apps.console.frame.site import site
from apps.console.pages.organizations.usage import COLUMNS, quota_bar, shown_amount
from apps.tenancy.models import Organization, OrganizationQuotas, Quota
from apps.tenancy.services.usage import count_used_by_all, kept_months, sum_months, usage_in_month

_PER_PAGE = 50
_PEAKS = (Quota.AGENTS, Quota.STORED_BYTES)
NAME = "usage"


@require_GET
def usage_view(request: HttpRequest) -> HttpResponse:
    """Show the quotas and the usage of the organizations that the person may see, in the month of the URL."""
    admin, months = site.get_model_admin(Organization), kept_months()
    month = _month_of(request, months)
    organizations = admin.visible_rows(request).order_by("name", "pk")
    page = Paginator(organizations, _PER_PAGE).get_page(request.GET.get("page"))
    rows = list(page.object_list)
    keys = [row.pk for row in rows]
    used, of_month = count_used_by_all(keys), usage_in_month(keys, month)
    quotas = {each.pk: each.limits for each in OrganizationQuotas.objects.filter(pk__in=keys)}
    no_limits = OrganizationQuotas().limits
    is_current = month == months[0]
    if is_current:  # the stored peaks may be out of date
        for key, values in of_month.items():
            values.update({quota: max(used[key][quota], values[quota] or 0) for quota in _PEAKS})
    everyone = None if console_user_of(request).is_superuser else list(organizations.values_list("pk", flat=True))
    totals = sum_months(everyone) if page.paginator.count > 1 else []
    context = {
        **site.each_context(request),
        "title": "Usage",
        "months": [(f"{each:%B %Y}", f"?{urlencode({'month': f'{each:%Y-%m}'})}", each == month) for each in months],
        "month": f"{month:%B %Y}",
        "is_current": is_current,
        "page": page,
        "columns": [*COLUMNS.values()],
        "rows": [
            {
                "name": row_link(row),
                "bars": [quota_bar(each, used[row.pk][each], quotas.get(row.pk, no_limits)[each]) for each in Quota],
                "cells": [shown_amount(name, of_month[row.pk][name]) for name in COLUMNS],
            }
            for row in rows
        ],
        "quotas": [quota_bar(quota, 0, None)["title"] for quota in Quota],
        "totals": [
            (f"{each['month']:%B %Y}", *(shown_amount(name, each[name]) for name in COLUMNS)) for each in totals
        ],
        "more": page.paginator.num_pages > 1,
    }
    return TemplateResponse(request, "console/usage_page.html", context)


def _month_of(request: HttpRequest, months: list[date]) -> date:
    """Return the month in the URL, or else the current one. Raises Http404 if it is invalid or no longer kept."""
    asked = request.GET.get("month")
    found = next((each for each in months if asked in {None, f"{each:%Y-%m}"}), None)
    if found is None:
        raise Http404("The month in the URL is invalid, or its usage is no longer kept.")
    return found


def usage_url() -> str:
    """Return the URL of the page."""
    return reverse(f"admin:{NAME}")


site.add_page("usage/", NAME, usage_view)
