"""Pages of the console for what it refuses: they have the menu, and say what is missing and where to go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.csp import CSP
from django.views.decorators.csp import csp_override

from apps.console.frame.console_user import who_holds
from apps.console.frame.menu import page_admin
from apps.console.frame.scope import enter
from byteor_cloud.api import problems

# The theme's Alpine.js needs `unsafe-eval`. No page outside the console permits it.
CONSOLE_CSP = {**settings.SECURE_CSP, "script-src": [CSP.SELF, CSP.UNSAFE_EVAL]}


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request for something that does not exist, or that belongs to somebody else: the answer is the same."""
    return _refuse(request, 404, "Not found", lambda here: _missing(exception, here)) or problems.not_found(
        request, exception
    )


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that the person's roles do not permit."""
    return _refuse(request, 403, "Not permitted", lambda here: _lacking(request, here)) or problems.forbidden(
        request, exception
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a malformed request."""
    text = "The address or the form of this request has a part that cannot be read."
    return _refuse(request, 400, "Malformed request", lambda here: text) or problems.bad_request(request, exception)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form with an invalid CSRF token. Django's CSRF_FAILURE_VIEW."""
    text = "The form has expired or came from another site. Go back, reload the page and send it again."
    return _refuse(request, 403, "Form expired", lambda here: text) or problems.csrf_failure(request, reason)


def refuse_method(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Answer a request with a method that the page does not have."""
    text = "This address is part of a form or a button. Open the page that has it."
    page = _refuse(request, 405, "Not a page", lambda here: text)
    if page is None:
        return response
    page["Allow"] = response["Allow"]
    return page


def _missing(exception: Exception, here: Any) -> str:
    if isinstance(exception, Http404) and exception.args and isinstance(exception.args[0], str):
        return exception.args[0]
    what = here.singular if here else "page"
    return f"There is no such {what}, or you may not see it. It may have been deleted."


def _lacking(request: HttpRequest, here: Any) -> str:
    if here is None:
        return "Your roles do not permit this. Ask an administrator of your organization."
    if here.has_view_permission(request):
        return f"Your role does not permit this on this {here.singular}. Ask an administrator of your organization."
    if here.tenant is None:
        return f"Only operators of this installation may see {here.plural}."
    return f"Your roles do not permit you to see {here.plural}. {who_holds(here.needs)} may see them."


def _refuse(request: HttpRequest, status: int, title: str, explain: Callable[[Any], str]) -> HttpResponse | None:
    """Return the page; None if the request is not from a person's browser in the console."""
    from apps.console.frame.site import site  # noqa: PLC0415  the site imports this module

    if not request.path.startswith(reverse("admin:index")) or not problems.wants_page(request):
        return None
    if not hasattr(request, "user") or not site.has_permission(request):
        return None
    enter(request, None)  # the address may name a scope that the person may not see
    here = page_admin(site, request)
    context = {
        **site.each_context(request),
        "title": title,
        "text": explain(here),
        "list": here if here is not None and here.has_view_permission(request) else None,
        "request_id": request.META.get("HTTP_X_REQUEST_ID"),
    }
    return csp_override(CONSOLE_CSP)(render)(request, "console/refused.html", context, status=status)
