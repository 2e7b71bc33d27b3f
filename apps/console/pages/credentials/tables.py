"""Console pages of user tokens, organization API keys, signing keys and sign-in links."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import capfirst

from apps.console.frame import Act, ReadOnlyAdmin, VisibleRowsFilter, row_link, site, state_pill
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.scope import reaching
from apps.console.pages.people.acts import role_title
from apps.tenancy.api import commands
from apps.tenancy.models import OrganizationKey, SigningKey, SignInLink, Tenant, UserToken
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import tokens
from byteor.engine.signing.keys import KeyStatus


class CredentialAdmin(ReadOnlyAdmin):
    """The base of tables of credentials."""

    section = "People and keys"

    def page_title(self, row: Any) -> str:
        return f"{capfirst(self.singular)} {getattr(row, 'name', '')} ({row.prefix}…)".replace("  ", " ")

    @admin.display(description="State")
    def state(self, row: Any) -> str:
        if row.revoked_at is not None:
            return state_pill("revoked")
        return state_pill("expired" if row.expires_at is not None and row.expires_at <= timezone.now() else "active")


def revoke_act(action: str, scope: Any, needs: P | None) -> Act:
    """Return the act that revokes a credential. ``scope`` returns the tenant of the audit event for a row."""
    return Act(
        name="revoke",
        label="Revoke",
        done="{} revoked",
        explain="The credential becomes invalid within a second. This cannot be undone.",
        run=lambda row, context: tokens.revoke(row, action=action, actor=context.actor, scope=scope(row)),
        needs=needs,
        icon="block",
        dangerous=True,
        applies=lambda row: row.revoked_at is None,
    )


@admin.register(UserToken, site=site)
class UserTokenAdmin(CredentialAdmin):
    menu = "User tokens"
    related = ("user",)
    list_display = ("prefix", "name", "user", "state", "expires_at", "last_used_at", "created_at")
    narrow_columns = ("name", "state")
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
    list_display = ("prefix", "name", "role_title", "organization", "project", "state", "expires_at", "last_used_at")
    narrow_columns = ("name", "state")
    list_filter = ("role", ("organization", VisibleRowsFilter))
    search_fields = ("name", "prefix", "=id")
    acts = (revoke_act("api_key.revoke", lambda row: row.organization, P.MANAGE_ORG_MEMBERSHIPS),)

    @admin.display(description="Role", ordering="role")
    def role_title(self, row: OrganizationKey) -> str:
        return role_title(row.role)

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
    narrow_columns = ("state",)
    list_filter = ("status", ("organization", VisibleRowsFilter))
    search_fields = ("kid", "=id")
    acts = (
        Act.of(
            commands.retire,
            label="Retire",
            done="{} retired",
            explain="A retiring key becomes invalid immediately, except for signatures that record an earlier "
            "time. A next key is withdrawn before it signs anything. In both cases, the private key is destroyed.",
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
        """Show the key's current status and its organization."""
        return {"facts": [("Status", state_pill(row.current_status)), ("Organization", row_link(row.organization))]}


@admin.register(SignInLink, site=site)
class SignInLinkAdmin(ReadOnlyAdmin):
    noun, nouns = "sign-in link", "sign-in links"
    holds = "When one-time links for signing in were created and used. The links themselves are not stored."
    related = ("user",)
    list_display = ("user", "created_at", "expires_at", "used_at")
    narrow_columns = ("expires_at",)
    search_fields = ("user__email", "=id")

    def page_title(self, row: SignInLink) -> str:
        return f"Sign-in link for {row.user}"
