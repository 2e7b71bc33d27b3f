"""The base classes and fields of the console's forms, and the protection against forms that are sent twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest
from unfold.widgets import (
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apps.console.frame.console_user import actor_of
from apps.tenancy.permissions import Permission
from apps.tenancy.services.sent_forms import LIFETIME, FormResult, find_result, run_once, run_steps_once
from byteor_cloud.api import problems
from byteor_cloud.api.fields import StrictSerializer
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.errors import Conflict, DomainError, FieldError, InvalidInput
from byteor_cloud.ids import uuid7

_LIFETIMES = {
    timedelta(hours=1): "1 hour",
    timedelta(days=1): "1 day",
    timedelta(days=7): "7 days",
    timedelta(days=30): "30 days",
    timedelta(days=90): "90 days",
    timedelta(days=365): "1 year",
}
# The salt is a former path of this module. It must stay the same: forms that are open in browsers during an upgrade are
# signed with it.
_signer = TimestampSigner(salt="apps.tenancy.console.forms")


class CheckedForm(forms.Form):
    """A form whose values become a request body of the API. It shows the errors of the API's rules and of services.

    ``conflicts`` maps the code of a Conflict to the field that shows it.
    """

    conflicts: ClassVar[Mapping[str, str]] = {}

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the name of the field for a JSON pointer into the body, or None, and the rest of the pointer."""
        first, _, rest = pointer.removeprefix("/").partition("/")
        return (first if first in self.fields else None), rest

    def show(self, error: DomainError) -> None:
        """Show the error next to the fields that the error or ``conflicts`` names, otherwise above the form."""
        for each in error.errors:
            if isinstance(each, FieldError):
                name, rest = self.field_of(each.pointer)
                self.add_error(name, f"{rest}: {each.detail}" if rest else each.detail)
        if not error.errors:
            self.add_error(self.conflicts.get(error.reason), error.detail)


class ActForm(CheckedForm):
    """The form of an act on a row.

    If set, ``rules`` validates ``body``. It is a serializer of the API, or derived from one.
    """

    rules: ClassVar[type[StrictSerializer] | None] = None
    conflicts: ClassVar[Mapping[str, str]] = {"name_taken": "name", "slug_taken": "slug"}

    def __init__(self, data: Any, *, row: Any, held: frozenset[Permission], compute: Compute = here) -> None:
        super().__init__(data)
        self.values: dict[str, Any] = {}
        self.compute = compute  # for services that ``offer`` calls
        self.offer(row, held)

    def offer(self, row: Any, held: frozenset[Permission]) -> None:
        """Set the fields, choices and initial values for this row and a person with the permissions ``held``."""

    def body(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request body of the API for the cleaned values, by default without empty texts and None."""
        return {name: value for name, value in cleaned.items() if value not in ("", None)}

    def clean(self) -> dict[str, Any]:
        """Validate the values with ``rules``, if it is set, and store the result in ``values``."""
        cleaned: dict[str, Any] = self.cleaned_data
        if self.errors:
            return cleaned
        body = self.body(cleaned)
        self.values = body
        if self.rules is not None:
            checked = self.rules(data=body)
            if checked.is_valid():
                self.values = checked.validated_data
            else:
                self.show(InvalidInput("Some values are invalid.", errors=[*problems.field_errors(checked.errors)]))
        return cleaned


class CommentForm(ActForm):
    """A form with one text field: the reason for the act, or whatever the act's ``comment_label`` names."""

    comment = forms.CharField(max_length=500, strip=True, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))


def name_field(help_text: str = "") -> forms.CharField:
    """Return a form field for a name."""
    return forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget, help_text=help_text)


def slug_field() -> forms.CharField:
    """Return a form field for a slug."""
    return forms.CharField(
        required=False, max_length=63, widget=UnfoldAdminTextInputWidget,
        help_text="A short unique name of lower-case letters, digits and dashes, not starting with a dash. By default "
        "derived from the name, or random if the name has no usable characters.",
    )  # fmt: skip


def lifetime_field() -> forms.TypedChoiceField:
    """Return a form field for a credential's lifetime in seconds. ``offer_lifetimes`` sets the choices."""
    return forms.TypedChoiceField(coerce=int, label="Expires in", widget=UnfoldAdminSelectWidget)


def offer_lifetimes(field: Any, *, longest: timedelta, first: timedelta) -> None:
    """Offer ``longest`` and shorter usual lifetimes. The initial choice is the shorter of ``first`` and ``longest``."""
    named = {each: text for each, text in _LIFETIMES.items() if each < longest}
    named[longest] = _LIFETIMES.get(longest, f"{longest.days} days")
    field.choices = [(int(each.total_seconds()), text) for each, text in named.items()]
    field.initial = int(min(first, longest).total_seconds())


def radio_field(choices: Mapping[Any, str], **options: Any) -> forms.ChoiceField:
    """Return a field of radio buttons. ``choices`` maps each value to a text that explains the value."""
    return forms.ChoiceField(choices=list(choices.items()), widget=UnfoldAdminRadioSelectWidget, **options)


def new_form_id() -> str:
    """Return a new signed id for a form."""
    return _signer.sign(str(uuid7()))


def send_once(request: HttpRequest, work: Callable[[], FormResult], *, in_steps: bool = False) -> FormResult:
    """Run ``work`` for the submitted form, and return the result. If the form is sent again, return the first result.

    With ``in_steps``, ``work`` commits several transactions; otherwise it runs in one. Raises Conflict if the form has
    expired or has an invalid id, and for the same reasons as ``run_once`` or, with ``in_steps``, ``run_steps_once``.
    """
    form_id = _submitted_id(request)
    if form_id is None:
        detail = "This form has expired. Check the values and send it again."
        raise Conflict(detail, code="form_expired")
    run = run_steps_once if in_steps else run_once
    return run(form_id, _submitted_values(request), actor=actor_of(request), work=work)


def first_result(request: HttpRequest) -> FormResult | None:
    """Return the result of the submitted form if the person already sent it with the same values; otherwise None.

    Also returns None if the result has expired or is not available (``find_result``).

    The first submission may have changed the rows so that the same form is no longer valid, for example by deleting
    them. Call this before refusing a form.
    """
    form_id = _submitted_id(request)
    return None if form_id is None else find_result(form_id, _submitted_values(request), actor=actor_of(request))


def _submitted_id(request: HttpRequest) -> str | None:
    """Return the form's id without its signature; None without a valid id."""
    try:
        return _signer.unsign(request.POST.get("_form", ""), max_age=LIFETIME)
    except BadSignature:
        return None


def _submitted_values(request: HttpRequest) -> dict[str, list[str]]:
    values = {name: each for name, each in request.POST.lists() if name not in {"_form", "csrfmiddlewaretoken"}}
    values["_page"] = [request.path]  # the same values on the page of another row are a different request
    return values
