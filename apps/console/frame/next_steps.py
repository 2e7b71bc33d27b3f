"""What comes after an act: the next step that its message offers, and the page to which the person returns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from django.contrib import messages
from django.db.models import Model
from django.http import HttpRequest
from django.urls import Resolver404, get_script_prefix, resolve
from django.utils.html import format_html

from apps.console.frame.columns import row_url
from apps.console.frame.console_user import ConsoleUser
from apps.tenancy.models import Tenant
from apps.tenancy.permissions import Permission
from apps.tenancy.services.sent_forms import FormResult

NEXT: Final = "next"
"""The query parameter with the URL of the page to which the person returns from a form."""
CHOSEN: Final = "chosen"
"""The query parameter with the id of the created or changed row, for the page to which the person returns."""
_URL = re.compile(r"/[!-\[\]-~]*")  # a slash, then visible ASCII characters except backslashes


@dataclass(frozen=True, slots=True)
class NextStep:
    """What people usually do after an act. The act's message offers it as a link."""

    text: str
    url: Callable[[Any], str]  # returns the URL for the created or changed row
    needs: Permission | None = None  # the permission in the row's tenant; None: everybody who may perform the act


def offer(step: NextStep | str | None, row: Any, tenant: Tenant, console_user: ConsoleUser) -> FormResult:
    """Return the part of a form's result that offers the next step; empty if there is none for this person."""
    if not isinstance(step, NextStep):
        return {}
    if step.needs is not None and step.needs not in console_user.permissions(tenant):
        return {}
    return {"offer": [step.url(row), step.text]}


def result_of(
    row: Model, done: str, step: NextStep | None = None, *, tenant: Tenant, console_user: ConsoleUser
) -> FormResult:
    """Return the result of a form that created or changed ``row``. ``done`` is a sentence about what happened."""
    return {"url": row_url(row), "key": str(row.pk), "done": done, **offer(step, row, tenant, console_user)}


def message_of(request: HttpRequest, result: FormResult) -> str:
    """Return the message about what happened. It offers the next step unless the person returns to another page."""
    if "offer" not in result or next_of(request):
        return str(result["done"])
    url, text = result["offer"]
    return format_html('{} <a class="next-step" href="{}">{}</a>', result["done"], url, text)


def conclude(request: HttpRequest, result: FormResult) -> str:
    """Add the message about what happened, and return the URL of the page to show."""
    messages.success(request, message_of(request, result))
    return url_after(request, result)


def url_after(request: HttpRequest, result: FormResult) -> str:
    """Return the page of ``next_of``, with the result's row chosen.

    If ``next_of`` returns "", return the result's URL. If the result has no ``key``, no row is chosen.
    """
    back = next_of(request)
    if not back:
        return str(result["url"])
    return with_parameter(back, CHOSEN, result["key"]) if "key" in result else back


def next_of(request: HttpRequest) -> str:
    """Return the URL in the parameter ``next``; "" if it is missing or fails ``is_console_page``."""
    url = request.GET.get(NEXT, "")
    return url if is_console_page(url) else ""


def is_console_page(url: str) -> bool:
    """Return whether the URL is an absolute path in the console, so that a redirect to it stays there."""
    if not _URL.fullmatch(url) or url.startswith("//"):
        return False
    path = unquote(urlsplit(url).path)
    # Browsers remove dot segments, so the path would be another one.
    if not _URL.fullmatch(path) or {".", ".."} & set(path.split("/")) or not path.startswith(get_script_prefix()):
        return False
    try:
        return resolve(f"/{path.removeprefix(get_script_prefix())}").namespace == "admin"
    except Resolver404:
        return False


def returning(url: str, back: str) -> str:
    """Return the URL of a form with the page ``back`` of the console as the page to which the person returns.

    If ``back`` is empty, return the URL unchanged.
    """
    return with_parameter(url, NEXT, back) if back else url


def with_parameter(url: str, name: str, value: object) -> str:
    """Return the URL with the query parameter, which replaces one with the same name."""
    path, _, query = url.partition("?")
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != name]
    return f"{path}?{urlencode([*kept, (name, value)])}"
