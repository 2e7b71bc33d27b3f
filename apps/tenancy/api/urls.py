"""The URLs of tenancy's resources, below /api/v1."""

from django.urls import URLPattern, URLResolver, include, path

from apps.tenancy.api import audit_events as a
from apps.tenancy.api import usage as u
from apps.tenancy.api import views as v
from apps.tenancy.api import webhooks as w
from byteor_cloud.api.routing import route

urlpatterns: list[URLPattern | URLResolver] = [
    route("me", v.MeViewSet, get="retrieve"),
    route("tokens", v.TokenViewSet, get="list", post="create"),
    route("tokens/<uuid:id>", v.TokenViewSet, delete="destroy"),
    route("orgs", v.OrganizationCollectionViewSet, get="list", post="create"),
    route("orgs/<uuid:org_id>", v.OrganizationDetailViewSet, get="retrieve", put="update"),
    path(
        "orgs/<uuid:org_id>/",
        include(
            [
                route("members", v.OrganizationMemberViewSet, get="list", post="create"),
                route("members/<uuid:user_id>", v.OrganizationMemberViewSet, put="update", delete="destroy"),
                route("api-keys", v.OrganizationKeyViewSet, get="list", post="create"),
                route("api-keys/<uuid:id>", v.OrganizationKeyViewSet, delete="destroy"),
                route("signing-keys", v.SigningKeyViewSet, get="list"),
                route("signing-keys/rotate", v.SigningKeyViewSet, post="rotate"),
                route("signing-keys/<str:kid>/retire", v.SigningKeyViewSet, post="retire"),
                route("audit-events", a.AuditEventViewSet, get="list"),
                route("audit-events/export", a.AuditEventViewSet, get="export"),
                route("usage", u.UsageViewSet, get="usage"),
                route("webhooks", w.WebhookViewSet, get="list", post="create"),
                route("webhooks/<uuid:id>", w.WebhookViewSet, get="retrieve", put="update", delete="destroy"),
                route("webhooks/<uuid:id>/rotate-secret", w.WebhookViewSet, post="rotate_secret"),
                route("webhooks/<uuid:id>/test", w.WebhookViewSet, post="test"),
                route("webhooks/<uuid:id>/deliveries", w.WebhookDeliveryViewSet, get="list"),
                route(
                    "webhooks/<uuid:id>/deliveries/<uuid:delivery_id>/redeliver",
                    w.WebhookDeliveryViewSet,
                    post="redeliver",
                ),
                route("projects", v.ProjectCollectionViewSet, get="list", post="create"),
                route(
                    "projects/<uuid:project_id>",
                    v.ProjectDetailViewSet,
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
                route("members", v.ProjectMemberViewSet, get="list", post="create"),
                route("members/<uuid:user_id>", v.ProjectMemberViewSet, put="update", delete="destroy"),
                route("environments", v.EnvironmentCollectionViewSet, get="list", post="create"),
                route(
                    "environments/<uuid:env_id>",
                    v.EnvironmentDetailViewSet,
                    get="retrieve",
                    put="update",
                    delete="destroy",
                ),
            ]
        ),
    ),
]
