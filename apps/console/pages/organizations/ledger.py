"""The page that exports the signed ledger of an organization."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from apps.console.frame.columns import page_url, row_url
from apps.console.frame.console_user import console_user_of
from apps.tenancy.models import AuditSeal, Organization
from apps.tenancy.permissions import Permission
from apps.tenancy.services import ledger
from byteor_cloud.api import bodies, problems
from byteor_cloud.errors import DomainError, InvalidInput


class _ExportForm(forms.Form):
    after_seq = forms.IntegerField(
        required=False, min_value=0, max_value=2**63 - 1, label="After sequence number",
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The last sequence number of your previous export.",
    )  # fmt: skip
    since = forms.DateField(
        required=False, label="Since (UTC)", widget=UnfoldAdminTextInputWidget(),
        help_text="The file may also contain some earlier events, because events can be sealed late.",
    )  # fmt: skip
    since.widget.input_type = "date"

    def clean(self) -> dict[str, Any]:
        """Require at most one of the two starts."""
        given = super().clean() or {}
        if given.get("since") and given.get("after_seq") is not None:
            raise forms.ValidationError("Choose a sequence number or a date, not both.")
        return given


def may_export_ledger(request: HttpRequest, organization: Organization) -> bool:
    """Return whether the person may export the organization's ledger."""
    return Permission.MANAGE_ORG_MEMBERSHIPS in console_user_of(request).permissions(organization)


def ledger_panel(organization: Organization) -> dict[str, Any]:
    """Return the panel of the organization's page with the link to the export."""
    return {
        "title": "Ledger",
        "lead": "The audit events of the organization are sealed in a chain of hashes.",
        "button": {
            "url": page_url(Organization, "ledger", organization.pk),
            "icon": "verified_user",
            "text": "Export ledger",
            "description": "Download the sealed audit events with a signed checkpoint",
        },
    }


def export_ledger(request: HttpRequest, organization: Organization, context: dict[str, Any]) -> HttpResponseBase:
    """Return the page with the form. If the form was sent, return the export, the form with errors, or an error page.

    Raises PermissionDenied without the permission.
    """
    if not may_export_ledger(request, organization):
        raise PermissionDenied
    form = _ExportForm(request.GET if "export" in request.GET else None)
    if form.is_valid():
        after = _start(organization, form.cleaned_data)
        try:
            lines = ledger.export_lines(organization, after_seq=after)
        except InvalidInput as error:
            form.add_error("after_seq", error.errors[0].detail if error.errors else error.detail)
        except DomainError as error:
            return problems.respond_or_show_page(request, error)
        else:
            name = f"{organization.slug}-ledger{f'-after-{after}' if after else ''}.ndjson"
            return StreamingHttpResponse(
                bodies.join_lines(lines),
                content_type="application/x-ndjson",
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
    last = AuditSeal.objects.filter(organization=organization).select_related("event").order_by("-seq").first()
    shown = {"title": "Export ledger", "original": organization, "form": form, "last": last}
    return TemplateResponse(request, "console/ledger.html", {**context, **shown, "back": row_url(organization)})


def _start(organization: Organization, given: dict[str, Any]) -> int:
    """Return the sequence number after which the export starts."""
    if given["since"] is None:
        return given["after_seq"] or 0
    return ledger.find_seq_before(organization, datetime.combine(given["since"], time(), UTC))
