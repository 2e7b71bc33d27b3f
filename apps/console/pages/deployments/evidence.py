"""The download of a deployment's evidence."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from apps.console.frame.columns import page_url
from apps.console.frame.console_user import may_operate
from apps.releases.models import Deployment
from apps.releases.services import evidence
from byteor_cloud.api import problems
from byteor_cloud.errors import DomainError


def evidence_links(request: HttpRequest, row: Any) -> list[tuple[str, str, str]]:
    """Return the text, URL and icon of the download; none before the bundle is built or without the permission."""
    if row.bundle_hash is None or not may_operate(request, row.environment):
        return []
    return [("Evidence", page_url(Deployment, "evidence", row.pk), "verified")]


def download_evidence(request: HttpRequest, row: Deployment) -> HttpResponse:
    """Return the evidence as a tar, or an error page. Raises PermissionDenied unless the person may operate."""
    if not may_operate(request, row.environment):
        raise PermissionDenied
    try:
        archive = evidence.build_archive(row)
    except DomainError as error:
        return problems.respond_or_show_page(request, error)
    name = f'attachment; filename="deployment-{row.pk}-evidence.tar"'
    return HttpResponse(archive, content_type="application/x-tar", headers={"Content-Disposition": name})
