"""Searches for agents that people save for themselves. Saving and deleting them writes no audit events."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from apps.fleet.models import SavedSearch
from apps.fleet.services import agent_search
from apps.tenancy.models import Organization, User
from byteor_cloud.errors import Conflict, InvalidInput, NotFound

MAX_SAVED = 50  # for each person and organization
MAX_NAME = 60


def searches_of(user: User, organization: Organization) -> QuerySet[SavedSearch]:
    """Return the searches that the person saved in the organization, ordered by name."""
    return SavedSearch.objects.filter(owner=user, organization=organization).order_by("name")


@transaction.atomic
def save_search(user: User, organization: Organization, *, name: str, query: str) -> SavedSearch:
    """Save a search under a name. The caller has checked that the person belongs to the organization.

    Raises InvalidInput for an invalid name or search, and Conflict if the name is taken or the person has too many.
    """
    name, query = name.strip(), query.strip()
    if not (1 <= len(name) <= MAX_NAME and name.isprintable()):
        raise InvalidInput(f"Enter a name of 1 to {MAX_NAME} printable characters.")
    if not agent_search.parse(query):
        raise InvalidInput("Enter a search first, then save it.")
    # Requests of one person wait for each other, so that they do not exceed the limit.
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    saved = searches_of(user, organization)
    if saved.filter(name=name).exists():
        raise Conflict(f"You already have a saved search {name}. Choose another name.", code="name_taken")
    if saved.count() >= MAX_SAVED:
        raise Conflict(f"You have {MAX_SAVED} saved searches in this organization. Delete one first.", code="too_many")
    return SavedSearch.objects.create(owner=user, organization=organization, name=name, query=query)


def delete_search(user: User, pk: UUID) -> None:
    """Delete one of the person's saved searches. Raises NotFound if the person has no such search."""
    deleted, _ = SavedSearch.objects.filter(owner=user, pk=pk).delete()
    if not deleted:
        raise NotFound("You have no such saved search.")
