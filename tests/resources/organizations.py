"""Organizations and their usage."""

from __future__ import annotations

from apps.tenancy.models import Organization
from tests.permissions import ADMIN, VIEW_ORG, NoRole
from tests.resources import Act, Call, O, Page, Place, Resource, Table, chat_webhooks, webhooks


def organization(place: Place) -> Organization:
    return place.environment.project.organization


RESOURCE = Resource(
    calls=(
        Call("listOrganizations", "GET", "/api/v1/orgs", NoRole.SIGNED_IN, null=frozenset({"settings"})),
        Call(
            "createOrganization", "POST", "/api/v1/orgs", NoRole.PERSON, 201,
            values=lambda place: {"name": "Initech"},
        ),
        Call("getOrganization", "GET", O, VIEW_ORG),
        Call("updateOrganization", "PUT", O, ADMIN),
        Call("getUsage", "GET", O + "/usage", VIEW_ORG),
    ),
    tables=(
        Table(
            "tenancy.organization", VIEW_ORG, organization,
            acts={
                "create_project": Act("createProject", {"name": "created by a law test"}),
                "invite": Act("addOrganizationMember", {"email": "new@acme.example", "role": "viewer"}),
                "notification_defaults": Act("updateOrganization", {"incident.new": "daily"}),
                "create_key": Act(
                    "createOrganizationKey",
                    {"name": "created by a law test", "expires_in_s": "3600", "role": "viewer", "project_id": ""},
                ),
                "rotate_signing_key": Act("rotateSigningKey", on_page=False),
                "rotate_signing_key_at_once": Act("rotateSigningKey", on_page=False),
                "create_webhook": Act("createWebhook", webhooks.NEW, on_page=False),
                "create_chat_webhook": Act(values=chat_webhooks.NEW, needs=ADMIN, on_page=False),
                "set_quotas": Act(values={"agents": "5"}, only_operators=True),
            },
            pages={
                "tenancy_organization_ledger": Page("exportAuditEvents"),
                "usage": Page("getUsage", of_row=False),
            },
            large=frozenset({"settings"}),
        ),
        Table("tenancy.organizationquotas"),
        Table("tenancy.usecount"),
        Table("tenancy.monthlypeak"),
    ),
    ids={"org_id": organization},
)  # fmt: skip
