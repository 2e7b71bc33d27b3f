"""The console page on which a person allows or denies a machine's request to sign in as them (RFC 8628)."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.console.frame import site
from apps.console.frame.columns import relative_time
from apps.console.frame.console_user import actor_of, user_of
from apps.console.frame.forms import CheckedForm, new_form_id, send_once
from apps.tenancy.api.limits import limit_wrong_codes
from apps.tenancy.services import device_sign_ins
from apps.tenancy.services.sent_forms import FormResult
from apps.tenancy.services.tokens import default_token_lifetime
from byteor_cloud.errors import DomainError

NAME = "device"
_LONGEST_CODE = 20
_DECISIONS = {"allow": True, "deny": False}


class _CodeForm(CheckedForm):
    code = forms.CharField(
        max_length=_LONGEST_CODE,
        help_text="The code that the machine shows, such as BCDF-GHJK.",
        widget=UnfoldAdminTextInputWidget(
            attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false", "autofocus": ""}
        ),
    )


@require_http_methods(["GET", "HEAD", "POST"])
def device_view(request: HttpRequest) -> HttpResponse:
    """Ask for the code of a machine, show the machine, and allow or deny its sign-in.

    A link can prefill the code, but looking it up and deciding always require a form submission.
    """
    posted = request.method == "POST"
    form = _CodeForm(request.POST if posted else None, initial={"code": request.GET.get("user_code", "")})
    shown: dict[str, Any] = {"form": form}
    error = None
    if posted and form.is_valid():
        try:
            shown |= _answer(request, form.cleaned_data["code"])
        except DomainError as caught:
            error = caught
            form.add_error("code", error.detail)
    context = {**site.each_context(request), "title": "Sign in on another machine", **shown}
    response = TemplateResponse(request, "console/device.html", context, status=error.status if error else 200)
    if error is not None and error.retry_after is not None:
        response["Retry-After"] = str(error.retry_after)
    return response


def _answer(request: HttpRequest, code: str) -> dict[str, Any]:
    """Return the template context after a form submission. Raises DomainError, for example for a wrong code."""
    user = user_of(request)
    allow = _DECISIONS.get(request.POST.get("decision", ""))
    with limit_wrong_codes(user.pk):
        if allow is None:
            found = device_sign_ins.find_pending(code)
        else:
            return {"done": send_once(request, lambda: _decide(request, code, allow=allow))}
    return {
        "found": found,
        "code": device_sign_ins.shown_code(code),
        "requested": relative_time(found.created_at),
        "days": default_token_lifetime(user).days,
        "form_id": new_form_id(),
    }


def _decide(request: HttpRequest, code: str, *, allow: bool) -> FormResult:
    found = device_sign_ins.decide(code, allow=allow, user=user_of(request), actor=actor_of(request))
    return {"allowed": allow, "machine": found.client_name}


site.add_page("device/", NAME, device_view)
