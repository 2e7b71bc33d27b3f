"""The people of a project as choices in forms, and the names of people on pages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django import forms
from django.db.models import Q

from apps.tenancy.models import Membership, Project, User
from apps.tenancy.services.members import roles_in_project

MAX_PEOPLE = 200
"""The maximum number of people that a form offers, in addition to those who are chosen already."""


def people_field(help_text: str, **options: Any) -> forms.MultipleChoiceField:
    """Return a form field for any number of people. ``offer_people`` sets its choices."""
    return forms.MultipleChoiceField(
        required=False, widget=forms.CheckboxSelectMultiple, help_text=help_text, **options
    )  # fmt: skip


def offer_people(
    field: Any, project: Project, chosen: Collection[str], *, only_chosen: bool = False, excluded: object = None
) -> None:
    """Offer the project's people, and check those whose ids are ``chosen``. Does not offer the person ``excluded``.

    People who are chosen are also offered if they have left. With ``only_chosen``, nobody else is offered. Otherwise
    ``MAX_PEOPLE`` others are offered, in the order of their e-mail addresses. Takes three queries.
    """
    people = list(User.objects.filter(pk__in=chosen))
    if not only_chosen:
        ours = Q(project=None) | Q(project=project)
        theirs = Membership.objects.filter(ours, organization=project.organization_id, user__is_active=True)
        others = User.objects.filter(pk__in=theirs.values("user")).exclude(pk__in=chosen)
        people += others.order_by("email")[: MAX_PEOPLE + 1]
    roles = roles_in_project(project, [each.pk for each in people])
    if len(people) - len(chosen) > MAX_PEOPLE:
        field.help_text += f" Only {MAX_PEOPLE} people are listed. The API accepts everybody."
        people.pop()
    offered = sorted((each for each in people if each.pk != excluded), key=lambda each: each.email)
    field.choices = [(str(each.pk), f"{_name(each)} ({_role(roles.get(each.pk))})") for each in offered]
    field.initial = [str(each.pk) for each in offered if str(each.pk) in chosen]


def _name(user: User) -> str:
    return f"{user.name}, {user.email}" if user.name else user.email


def _role(role: object) -> str:
    return "no longer a member" if role is None else str(role).replace("_", " ")


def name_choice(field: forms.BoundField, position: str) -> str:
    """Return the label of a chosen person by the position in the sent list, for an error message; "" if unknown."""
    sent = field.value() or []
    labels: dict[str, str] = dict(field.field.choices)  # type: ignore[attr-defined]  # a choice field
    return labels.get(sent[int(position)], "") if position.isdecimal() and int(position) < len(sent) else ""


def list_people(user_ids: Collection[str]) -> str:
    """Return the names of people by their ids, with commas; "" without ids. Deleted people are left out."""
    if not user_ids:
        return ""
    people = User.objects.filter(pk__in=user_ids).order_by("email")
    return ", ".join(name or email for name, email in people.values_list("name", "email"))


def describe_reviewers(user_ids: Collection[str]) -> str:
    """Return who may decide: the names of the reviewers, or that there are none."""
    return list_people(user_ids) or "everybody who may operate the environment"
