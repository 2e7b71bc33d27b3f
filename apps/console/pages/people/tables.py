"""Console pages of people and their memberships."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from apps.console.frame import FoundBy, ReadOnlyAdmin, VisibleRowsFilter, site
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.scope import reaching
from apps.console.pages.credentials.acts import CREATE_USER_TOKEN
from apps.console.pages.organizations.acts import CREATE_ORGANIZATION
from apps.console.pages.people.acts import CHANGE_ROLE, INVITE_AGAIN, REMOVE_MEMBER, role_title
from apps.tenancy.models import Membership, Tenant, User
from apps.tenancy.permissions import Permission as P


def visible_memberships(queryset: QuerySet[Membership], console_user: ConsoleUser) -> QuerySet[Membership]:
    """Keep the memberships that the person may see.

    A membership of an organization is visible to people with a role in the organization, and a membership of a project
    to people with the permission to view the project. Installation operators see both. Memberships of deleted projects
    are left out.
    """
    live = queryset.filter(Q(project=None) | Q(project__deleted_at=None))
    if console_user.is_superuser:
        return live
    joined_organizations = [pk for pk, roles in console_user.roles.items() if roles.org]
    in_visible_project = console_user.project_condition(P.VIEW_PROJECT, "project__pk", "project__organization")
    return live.filter(
        Q(project=None, organization__in=joined_organizations) | (Q(project__isnull=False) & in_visible_project)
    )


@admin.register(Membership, site=site)
class MembershipAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.VIEW_ORG
    section = "People and keys"
    noun, nouns = "member", "members"
    related = ("user", "organization", "project")
    list_display = ("user", "role_title", "organization", "project", "created_at")
    narrow_columns = ("role_title",)
    list_filter = ("role", ("organization", VisibleRowsFilter))
    search_fields = ("user__email", "user__name", "=id")
    acts = (INVITE_AGAIN, CHANGE_ROLE, REMOVE_MEMBER)

    def tenant_of(self, row: Membership) -> Tenant:
        return row.project or row.organization

    def page_title(self, row: Membership) -> str:
        return f"Member {row.user} ({self.role_title(row).lower()} in {row.project or row.organization})"

    @admin.display(description="Role", ordering="role")
    def role_title(self, row: Membership) -> str:
        return role_title(row.role)

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return reaching(queryset, scope)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return visible_memberships(queryset, console_user)


@admin.register(User, site=site)
class UserAdmin(ReadOnlyAdmin):
    section = "People and keys"
    noun, nouns = "person", "people"
    found_by = FoundBy("person", words=("email", "name"))
    omitted = frozenset({"password", "last_login", "is_superuser", "vouched_by"})
    list_display = ("email", "name", "is_active", "created_at")
    narrow_columns = ("is_active",)
    list_filter = ("is_active",)
    search_fields = ("email", "name", "=id")
    acts = (CREATE_USER_TOKEN, CREATE_ORGANIZATION)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        if console_user.is_superuser:
            return queryset
        theirs = visible_memberships(Membership.objects.all(), console_user)
        return queryset.filter(Q(pk=console_user.user_id) | Q(pk__in=theirs.values("user")))

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return queryset.filter(pk__in=reaching(Membership.objects.all(), scope).values("user"))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True
