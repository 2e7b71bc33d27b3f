"""The URLs of tenancy's resources, below /api/v1."""

from django.urls import URLPattern, URLResolver, include, path

from apps.tenancy.api.views import (
    audit_events,
    callers,
    environments,
    members,
    organization_keys,
    organizations,
    projects,
    signing_keys,
    usage,
    webhooks,
)
from byteor_cloud.api.routing import route

urlpatterns: list[URLPattern | URLResolver] = [
    route("me", callers.MeViewSet, get="retrieve"),
    route("tokens", callers.TokenViewSet, get="list", post="create"),
    route("tokens/<uuid:id>", callers.TokenViewSet, delete="destroy"),
    route("orgs", organizations.OrganizationCollectionViewSet, get="list", post="create"),
    route("orgs/<uuid:org_id>", organizations.OrganizationDetailViewSet, get="retrieve", put="update"),
    path(
        "orgs/<uuid:org_id>/",
        include(
            [
                route("members", members.OrganizationMemberViewSet, get="list", post="create"),
                route("members/<uuid:user_id>", members.OrganizationMemberViewSet, put="update", delete="destroy"),
                route("members/<uuid:user_id>/invite", members.OrganizationMemberViewSet, post="invite"),
                route("api-keys", organization_keys.OrganizationKeyViewSet, get="list", post="create"),
                route("api-keys/<uuid:id>", organization_keys.OrganizationKeyViewSet, delete="destroy"),
                route("signing-keys", signing_keys.SigningKeyViewSet, get="list"),
                route("signing-keys/rotate", signing_keys.SigningKeyViewSet, post="rotate"),
                route("signing-keys/<str:kid>/retire", signing_keys.SigningKeyViewSet, post="retire"),
                route("audit-events", audit_events.AuditEventViewSet, get="list"),
                route("audit-events/export", audit_events.AuditEventViewSet, get="export"),
                route("usage", usage.UsageViewSet, get="usage"),
                route("webhooks", webhooks.WebhookViewSet, get="list", post="create"),
                route("webhooks/<uuid:id>", webhooks.WebhookViewSet, get="retrieve", put="update", delete="destroy"),
                route("webhooks/<uuid:id>/rotate-secret", webhooks.WebhookViewSet, post="rotate_secret"),
                route("webhooks/<uuid:id>/test", webhooks.WebhookViewSet, post="test"),
                route("webhooks/<uuid:id>/deliveries", webhooks.WebhookDeliveryViewSet, get="list"),
                route(
                    "webhooks/<uuid:id>/deliveries/<uuid:delivery_id>/redeliver",
                    webhooks.WebhookDeliveryViewSet,
                    post="redeliver",
                ),
                route("projects", projects.ProjectCollectionViewSet, get="list", post="create"),
                route(
                    "projects/<uuid:project_id>",
                    projects.ProjectDetailViewSet,
                    get="retrieve",
                    put="update",
                    delete="destroy",
                ),
            ]
        ),
    ),
    path(
        "orgs/<uuid:org_id>/projects/<uuid:project_id>/",
        include(
            [
                route("members", members.ProjectMemberViewSet, get="list", post="create"),
                route("members/<uuid:user_id>", members.ProjectMemberViewSet, put="update", delete="destroy"),
                route("members/<uuid:user_id>/invite", members.ProjectMemberViewSet, post="invite"),
                route("environments", environments.EnvironmentCollectionViewSet, get="list", post="create"),
                route(
                    "environments/<uuid:env_id>",
                    environments.EnvironmentDetailViewSet,
                    get="retrieve",
                    put="update",
                    delete="destroy",
                ),
            ]
        ),
    ),
]
