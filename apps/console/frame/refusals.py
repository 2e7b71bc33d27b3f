"""The console's error pages. They have the menu, explain what is wrong, and link to the overview.

If the URL belongs to a table that the person may see, they also link to the table's list.

Requests for which ``site.refuse`` returns no page get the response of ``byteor_cloud.api.problems``.
"""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from apps.console.frame.console_user import who_holds
from apps.console.frame.site import site
from byteor_cloud.api import problems


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page for a URL without a page, and for a row that does not exist or that the person may not see."""
    return site.refuse(request, 404, "Not found", lambda here: _missing(exception, here)) or problems.not_found(
        request, exception
    )


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page for a request that the person is not permitted to make."""
    return site.refuse(request, 403, "Not permitted", lambda here: _lacking(request, here)) or problems.forbidden(
        request, exception
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page for a request that is malformed or too large."""
    text = "A part of the URL or of the form is malformed or too large. Go back, reload the page and try again."
    return site.refuse(request, 400, "Invalid request", text) or problems.bad_request(request, exception)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the page for a form that failed the CSRF check. The setting ``CSRF_FAILURE_VIEW`` names this function."""
    text = "The form has expired or came from another site. Go back, reload the page and send it again."
    return site.refuse(request, 403, "Form expired", text) or problems.csrf_failure(request, reason)


def _missing(exception: Exception, here: Any) -> str:
    if isinstance(exception, Http404) and exception.args and isinstance(exception.args[0], str):
        return exception.args[0]
    what = here.singular if here else "page"
    return f"There is no such {what}, or you may not see it. It may have been deleted."


def _lacking(request: HttpRequest, here: Any) -> str:
    if here is None or here.has_view_permission(request):
        return "You are not permitted to do this. Ask an administrator of your organization."
    if here.tenant is None:
        return f"Only operators of this installation may see {here.plural}."
    return f"Your roles do not permit you to see {here.plural}. {who_holds(here.needs)} may see them."
