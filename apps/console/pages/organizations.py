"""Console pages of organizations, people and credentials."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import capfirst

from apps.console.frame import Act, ActContext, FoundBy, ReadOnlyAdmin, VisibleRowsFilter, row_link, site, state_pill
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.first_steps import FirstStep
from apps.console.frame.forms import ActForm
from apps.console.frame.scope import reaching
from apps.console.pages import audit as audit_pages  # noqa: F401  they register more tables
from apps.console.pages import people
from apps.console.pages import webhooks as webhook_pages  # noqa: F401  they register more tables
from apps.console.pages.environment_settings import (
    EDIT_SETTINGS,
    describe_freeze,
    describe_policy,
    freeze_panel,
    settings_panel,
)
from apps.console.pages.usage import SET_QUOTAS, usage_panels
from apps.tenancy.api import commands
from apps.tenancy.models import (
    Environment,
    IdempotencyKey,
    Membership,
    Organization,
    OrganizationKey,
    Project,
    RateCounter,
    SigningKey,
    SignInLink,
    Tenant,
    User,
    UserToken,
)
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import organizations, signing_keys, tokens
from byteor.engine.signing.keys import KeyStatus

_ID = re.compile(r"[:/ ]*[0-9a-f]{8}-[0-9a-f-]{27}")


def _without_ids(text: str) -> str:
    """Return a machine's name of a caller without its id, for a title."""
    return _ID.sub("", text).replace("_", " ") or "a caller"


def _delete(kind: str, needs: P) -> Act:
    return Act(
        name="delete",
        label="Delete",
        explain=f"The {kind} disappears at once for all callers, including its agents. Everything that belongs to it "
        "is then deleted in the background. Its audit events stay.",
        run=lambda row, context: organizations.delete(row, kind=kind, actor=context.actor),
        needs=needs,
        icon="delete",
        dangerous=True,
        removes=True,
    )


def _rotate(organization: Organization, context: ActContext) -> SigningKey:
    return signing_keys.rotate(organization=organization, actor=context.actor)


def _rotate_at_once(organization: Organization, context: ActContext) -> SigningKey:
    return signing_keys.rotate(organization=organization, activate_in_s=0, actor=context.actor)


@admin.register(Organization, site=site)
class OrganizationAdmin(ReadOnlyAdmin):
    tenant = ""
    needs = P.VIEW_ORG
    holds = "The companies or teams that share this installation, apart from each other."
    first_step = FirstStep(
        1, "Create an organization", "You become its first administrator. Nobody else sees what is in it.", None,
        "admin:start",
    )  # fmt: skip
    found_by = FoundBy("domain", words=("name", "slug"))
    list_display = ("name", "slug", "created_at")
    search_fields = ("name", "slug", "=id")
    acts = (
        people.CREATE_PROJECT,
        people.INVITE_TO_ORGANIZATION,
        people.CREATE_ORGANIZATION_KEY,
        Act(
            name="rotate_signing_key",
            label="Rotate signing key",
            explain="A new key is published now. It signs as soon as all agents have had time to fetch it. From then "
            "on, the previous key still verifies for a week.",
            run=_rotate,
            form=ActForm,
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="key",
            creates=SigningKey,
            on_page=False,
        ),
        Act(
            name="rotate_signing_key_at_once",
            label="Rotate at once",
            explain="For an emergency: a new key signs from now on. Agents fetch it when they first see its "
            "signature. The previous key still verifies for a week; to prevent that, retire it afterwards.",
            run=_rotate_at_once,
            form=ActForm,  # a double click must not make two keys
            needs=P.MANAGE_ORG_MEMBERSHIPS,
            icon="key",
            creates=SigningKey,
            on_page=False,
            dangerous=True,
        ),
        SET_QUOTAS,
    )
    not_below = frozenset({"auditseal.organization"})

    def summary(self, request: HttpRequest, row: Organization) -> dict[str, Any]:
        """Show what the organization uses."""
        return {"panels": usage_panels(row)}


@admin.register(Project, site=site)
class ProjectAdmin(ReadOnlyAdmin):
    tenant = ""
    needs = P.VIEW_PROJECT
    holds = "Groups of environments in an organization. People may have another role in each."
    first_step = FirstStep(
        2, "Create a project", "It holds the environments of one product, and people get their roles in it.",
        P.CREATE_PROJECT, "admin:tenancy_organization_choice", (people.CREATE_PROJECT.name,),
    )  # fmt: skip
    found_by = FoundBy("folder", words=("name", "slug"))
    related = ("organization",)
    omitted = frozenset({"deleted_at"})
    list_display = ("name", "slug", "organization", "created_at")
    list_filter = (("organization", VisibleRowsFilter),)
    search_fields = ("name", "slug", "=id")
    acts = (people.CREATE_ENVIRONMENT, people.INVITE_TO_PROJECT, _delete("project", P.MANAGE_PROJECT))


@admin.register(Environment, site=site)
class EnvironmentAdmin(ReadOnlyAdmin):
    tenant = ""
    section = "Environments"
    holds = "The places to deploy to, such as dev, staging and prod, with their rules."
    first_step = FirstStep(
        3, "Create an environment", "Its posture decides whether deployments need approval, and what replays may do.",
        P.MANAGE_PROJECT, "admin:tenancy_project_choice", (people.CREATE_ENVIRONMENT.name,),
    )  # fmt: skip
    found_by = FoundBy("layers", words=("name",))
    related = ("project__organization",)
    omitted = frozenset({"deleted_at"})
    list_display = ("name", "posture", "project", "organization", "created_at")
    list_filter = ("posture", ("project", VisibleRowsFilter))
    search_fields = ("name", "project__name", "=id")
    acts = (EDIT_SETTINGS, _delete("environment", P.MANAGE_PROJECT))
    change_form_outer_before_template = "console/environment.html"

    def summary(self, request: HttpRequest, row: Environment) -> dict[str, Any]:
        """Say what the environment permits; show its settings and its freeze windows."""
        now = timezone.now()
        return {
            "lead": describe_policy(row),
            "warning": describe_freeze(row.effective_settings.freeze_windows, now),
            "settings": [settings_panel(row), freeze_panel(row, now)],
        }

    @admin.display(description="Organization", ordering="project__organization__name")
    def organization(self, row: Environment) -> str:
        return row_link(row.project.organization)


def visible_memberships(queryset: QuerySet[Membership], console_user: ConsoleUser) -> QuerySet[Membership]:
    """Keep the memberships that the person may see through the API, too.

    A membership of an organization is visible with a role in the organization, and a membership of a project with the
    permission to view the project.
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
    first_step = FirstStep(
        4, "Invite people", "Whoever operates prod needs somebody else who approves.", P.MANAGE_ORG_MEMBERSHIPS,
        "admin:tenancy_organization_choice", (people.INVITE_TO_ORGANIZATION.name,), rows=2,
    )  # fmt: skip
    related = ("user", "organization", "project")
    list_display = ("user", "role", "organization", "project", "created_at")
    list_filter = ("role", ("organization", VisibleRowsFilter))
    search_fields = ("user__email", "user__name", "=id")
    acts = (people.CHANGE_ROLE, people.REMOVE_MEMBER)

    def tenant_of(self, row: Membership) -> Tenant:
        return row.project or row.organization

    def page_title(self, row: Membership) -> str:
        return f"Member {row.user}: {row.role} in {row.project or row.organization}"

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return reaching(queryset, scope)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return visible_memberships(queryset, console_user)


@admin.register(User, site=site)
class UserAdmin(ReadOnlyAdmin):
    section = "People and keys"
    noun, nouns = "person", "people"
    found_by = FoundBy("person", words=("email", "name"))
    omitted = frozenset({"password", "last_login", "is_superuser"})
    list_display = ("email", "name", "is_active", "created_at")
    list_filter = ("is_active",)
    search_fields = ("email", "name", "=id")
    acts = (people.CREATE_USER_TOKEN, people.CREATE_ORGANIZATION)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        if console_user.is_superuser:
            return queryset
        theirs = visible_memberships(Membership.objects.all(), console_user)
        return queryset.filter(Q(pk=console_user.user_id) | Q(pk__in=theirs.values("user")))

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return queryset.filter(pk__in=reaching(Membership.objects.all(), scope).values("user"))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True


class CredentialAdmin(ReadOnlyAdmin):
    """Base of the pages of credentials."""

    section = "People and keys"

    def page_title(self, row: Any) -> str:
        return f"{capfirst(self.singular)} {getattr(row, 'name', '')} ({row.prefix}…)".replace("  ", " ")

    @admin.display(description="State")
    def state(self, row: Any) -> str:
        if row.revoked_at is not None:
            return state_pill("revoked")
        return state_pill("expired" if row.expires_at is not None and row.expires_at <= timezone.now() else "active")


def revoke_act(action: str, scope: Any, needs: P | None) -> Act:
    """Return the act that revokes a credential. ``scope`` returns the tenant of its audit event for a row."""
    return Act(
        name="revoke",
        label="Revoke",
        explain="The credential becomes invalid at once. This cannot be undone.",
        run=lambda row, context: tokens.revoke(row, action=action, actor=context.actor, scope=scope(row)),
        needs=needs,
        icon="block",
        dangerous=True,
        applies=lambda row: row.revoked_at is None,
    )


@admin.register(UserToken, site=site)
class UserTokenAdmin(CredentialAdmin):
    menu = "My tokens"
    related = ("user",)
    list_display = ("prefix", "name", "user", "state", "expires_at", "last_used_at", "created_at")
    list_filter = ("revoked_at",)
    search_fields = ("name", "prefix", "user__email", "=id")
    acts = (revoke_act("token.revoke", lambda row: None, None),)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        return queryset if console_user.is_superuser else queryset.filter(user_id=console_user.user_id)


@admin.register(OrganizationKey, site=site)
class OrganizationKeyAdmin(CredentialAdmin):
    tenant = "organization"
    needs = P.MANAGE_ORG_MEMBERSHIPS
    related = ("organization", "project")
    list_display = ("prefix", "name", "role", "organization", "project", "state", "expires_at", "last_used_at")
    list_filter = ("role", ("organization", VisibleRowsFilter))
    search_fields = ("name", "prefix", "=id")
    acts = (revoke_act("api_key.revoke", lambda row: row.organization, P.MANAGE_ORG_MEMBERSHIPS),)

    def in_scope(self, queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
        return reaching(queryset, scope)


@admin.register(SigningKey, site=site)
class SigningKeyAdmin(ReadOnlyAdmin):
    tenant = "organization"
    needs = P.VIEW_ORG
    section = "People and keys"
    related = ("organization",)
    omitted = frozenset({"status"})
    list_display = ("kid", "state", "organization", "not_before", "signs_until", "not_after")
    list_filter = ("status", ("organization", VisibleRowsFilter))
    search_fields = ("kid", "=id")
    acts = (
        Act.of(
            commands.retire,
            label="Retire",
            explain="A retiring key no longer verifies anything signed from now on; earlier signatures still verify. "
            "A next key is withdrawn before it has signed anything. The private key is destroyed.",
            icon="block",
            comment="required",
            dangerous=True,
            applies=lambda row: row.current_status in {KeyStatus.NEXT, KeyStatus.RETIRING},
        ),
    )

    @admin.display(description="Status", ordering="status")
    def state(self, row: SigningKey) -> str:
        return state_pill(row.current_status)

    def summary(self, request: HttpRequest, row: SigningKey) -> dict[str, Any]:
        """Show the key's status now."""
        return {"facts": [("Status", state_pill(row.current_status)), ("Organization", row_link(row.organization))]}


@admin.register(SignInLink, site=site)
class SignInLinkAdmin(ReadOnlyAdmin):
    noun, nouns = "sign-in link", "sign-in links"
    holds = "One-time links with which people sign in, without the links themselves."
    related = ("user",)
    list_display = ("user", "created_at", "expires_at", "used_at")
    search_fields = ("user__email", "=id")

    def page_title(self, row: SignInLink) -> str:
        return f"Sign-in link for {row.user}"


@admin.register(IdempotencyKey, site=site)
class IdempotencyKeyAdmin(ReadOnlyAdmin):
    holds = "Requests whose first response is kept, so that a repetition gets the same."
    list_display = ("key", "caller", "status", "expires_at")
    sortable_by = ()
    search_fields = ("key", "caller")

    def page_title(self, row: IdempotencyKey) -> str:
        return f"Idempotency key of {_without_ids(row.caller)}"


@admin.register(RateCounter, site=site)
class RateCounterAdmin(ReadOnlyAdmin):
    holds = "How many requests each caller made in the current minute."
    ordering = ("-minute", "key")
    list_display = ("key", "minute", "count")
    sortable_by = ()
    search_fields = ("key",)

    def page_title(self, row: RateCounter) -> str:
        return f"Rate counter of {_without_ids(row.key)}"
