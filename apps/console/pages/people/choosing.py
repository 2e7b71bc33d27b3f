"""The people of a project as choices in forms, and the names of people on pages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import Exists, Q

from apps.console.frame.columns import name_role
from apps.tenancy.models import Membership, Project, User
from apps.tenancy.permissions import Role, effective_role
from apps.tenancy.services.members import roles_in_project

MAX_PEOPLE = 200
"""The maximum number of people that a form offers, apart from those who are chosen already."""


def people_field(help_text: str, **options: Any) -> forms.MultipleChoiceField:
    """Return a form field for any number of people. ``offer_people`` sets its choices."""
    return forms.MultipleChoiceField(
        required=False, widget=forms.CheckboxSelectMultiple, help_text=help_text, **options
    )  # fmt: skip


def offer_people(
    field: Any,
    project: Project,
    chosen: Collection[str],
    *,
    viewer: UUID | None = None,
    only_chosen: bool = False,
    excluded: object = None,
) -> None:
    """Offer the project's people, and check those whose ids are ``chosen``. Does not offer the person ``excluded``.

    People who are chosen are offered even if they have left. With ``only_chosen``, nobody else is offered. Otherwise,
    at most ``MAX_PEOPLE`` others are offered. If the ``viewer`` has no role in the organization, they do not include
    people who have only such a role.
    """
    everywhere = Q(project=None)
    if viewer is not None and not only_chosen:
        own = Membership.objects.filter(organization=project.organization_id, project=None, user=viewer)
        everywhere &= Q(Exists(own))
    ours = everywhere | Q(project=project)
    rows = Membership.objects.filter(ours, organization=project.organization_id, user__is_active=True)
    if only_chosen:
        rows = rows.filter(user__in=list(chosen))
    found: dict[UUID, tuple[str, dict[bool, Role]]] = {}
    values = rows.order_by("user__email", "user_id").values_list(
        "user_id", "user__name", "user__email", "project_id", "role"
    )
    for user_id, name, email, project_id, role in values[: 2 * MAX_PEOPLE + 2]:  # at most two rows for each person
        found.setdefault(user_id, (_name(name, email), {}))[1][project_id is None] = Role(role)
    if not only_chosen and len(found) > MAX_PEOPLE:
        field.help_text += " Not everybody is listed. To choose other people, use the API."
    listed = list(found)[: MAX_PEOPLE if not only_chosen else None]
    labels = {
        each: _label(found[each][0], effective_role(found[each][1].get(True), found[each][1].get(False)))
        for each in listed
    }
    if missing := [each for each in chosen if UUID(each) not in labels]:
        roles = roles_in_project(project, missing)
        for user_id, name, email in User.objects.filter(pk__in=missing).values_list("pk", "name", "email"):
            labels[user_id] = _label(_name(name, email), roles.get(user_id))
    field.choices = [(str(user_id), label) for user_id, label in labels.items() if user_id != excluded]
    field.initial = [user_id for user_id, _ in field.choices if user_id in chosen]


def _name(name: str, email: str) -> str:
    return f"{name}, {email}" if name else email


def _label(name: str, role: Role | None) -> str:
    return f"{name} ({'no longer a member' if role is None else name_role(role)})"


def name_choice(field: forms.BoundField, position: str) -> str:
    """Return the label of a chosen person by the position in the sent list, for an error message; "" if unknown."""
    sent = field.value() or []
    labels: dict[str, str] = dict(field.field.choices)  # type: ignore[attr-defined]  # a choice field
    return labels.get(sent[int(position)], "") if position.isdecimal() and int(position) < len(sent) else ""


def list_people(user_ids: Collection[str]) -> str:
    """Return the names (or addresses) of people by their ids, separated by commas. Deleted people are left out."""
    if not user_ids:
        return ""
    people = User.objects.filter(pk__in=user_ids).order_by("email")
    return ", ".join(name or email for name, email in people.values_list("name", "email"))


def describe_reviewers(user_ids: Collection[str]) -> str:
    """Return who may decide: the names of the reviewers, or a phrase for everybody if there are none."""
    return list_people(user_ids) or "everybody who may operate the environment"
