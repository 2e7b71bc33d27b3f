"""The console's rate limit: for each person the same limit as for a user token of the API, counted separately."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from apps.tenancy.api import limits
from apps.tenancy.api.authentication import note_verified
from apps.tenancy.credentials import credential_digest
from apps.tenancy.models import User
from byteor_cloud.api import problems
from byteor_cloud.errors import TooManyRequests


def limit_people(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Count each request of a signed-in person to the console, and refuse requests over the limit."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(reverse("admin:index")) or not isinstance(request.user, User):
            return get_response(request)
        note_verified(request, credential_digest(request.session.session_key or ""))
        usage = limits.count_console(request.user.pk)
        if usage is None:
            return get_response(request)
        try:
            usage.check()
        except TooManyRequests as error:
            response = _refuse(request, error, usage.limit)
        else:
            response = get_response(request)
        for name, value in usage.headers.items():
            response[name] = value
        return response

    return middleware


def _refuse(request: HttpRequest, error: TooManyRequests, limit: int) -> HttpResponse:
    """Return a page if the request accepts HTML, otherwise a problem."""
    response = problems.respond(request, error)
    if not problems.accepts_html(request):
        return response
    context = {
        "limit": f"{limit:,}",
        "wait_s": response["Retry-After"],
        "again": request.get_full_path() if request.method == "GET" else None,
        "request_id": request.META.get("HTTP_X_REQUEST_ID"),
    }
    page = render(None, "console/too_many_requests.html", context, status=error.status)
    page["Retry-After"] = response["Retry-After"]
    return page
