"""The page that the bell opens: the person's newest notifications."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from apps.console.frame import relative_time, site
from apps.console.frame.console_user import user_of
from apps.notifications.services import bell
from apps.tenancy.models import MessageEvent


@require_safe
def notifications_view(request: HttpRequest) -> HttpResponse:
    """List the newest notifications."""
    rows = list(
        bell.notifications_of(user_of(request)).select_related("event__organization").order_by("-pk")[: bell.SHOWN + 1]
    )
    context = {
        **site.each_context(request),
        "title": "Notifications",
        "notifications": [
            {"row": row, "event": row.event, "place": _place(row.event), "time": relative_time(row.created_at)}
            for row in rows[: bell.SHOWN]
        ],
        "more": len(rows) > bell.SHOWN,
    }
    return TemplateResponse(request, "console/notifications.html", context)


def _place(event: MessageEvent) -> str:
    levels = (event.organization, event.project, event.environment)
    return " / ".join(str(level) for level in levels if level is not None)


@require_POST
def mark_all_view(request: HttpRequest) -> HttpResponse:
    """Mark all of the person's notifications as read."""
    bell.mark(user_of(request), None, is_read=True)
    return HttpResponseRedirect(reverse("admin:notifications"))


@require_POST
def open_view(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Mark a notification as read, and redirect to the page that it is about, or to the list if there is no page."""
    user = user_of(request)
    row = bell.notifications_of(user).filter(pk=pk).first()
    if row is None:
        raise Http404("The notification does not exist, or you no longer have access to what it is about.")
    bell.mark(user, [pk], is_read=True)
    return HttpResponseRedirect(row.event.path or reverse("admin:notifications"))


site.add_page("notifications/", "notifications", notifications_view)
site.add_page("notifications/read/", "notifications_read", mark_all_view)
site.add_page("notifications/<uuid:pk>/open/", "notification_open", open_view)
