"""The root URL configuration: start page, API and documents, console, sign-in, agent package, probes and metrics."""

from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView, TemplateView
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

from apps.artifacts.api import urls as artifacts
from apps.console.pages import site
from apps.fleet.api import urls as fleet
from apps.notifications.api import urls as notifications
from apps.operations import metrics
from apps.pipelines.api import urls as pipelines
from apps.releases.api import urls as releases
from apps.tenancy.api import urls as tenancy
from apps.tenancy.api.views import device_sign_in, sign_in
from apps.tenancy.services import vault
from byteor_cloud.api import agent_package, document, system
from byteor_cloud.api.readiness import Check

PROJECT = "orgs/<uuid:org_id>/projects/<uuid:project_id>/"
ENVIRONMENT = PROJECT + "environments/<uuid:env_id>/"

api: list[URLPattern | URLResolver] = [
    *tenancy.urlpatterns,
    *notifications.urlpatterns,
    *pipelines.urlpatterns,
    *fleet.agent,
    *releases.agent,
    *artifacts.agent,
    path(PROJECT, include(releases.project)),
    path(
        ENVIRONMENT,
        include([*pipelines.environment, *fleet.environment, *releases.environment, *artifacts.environment]),
    ),
]


urlpatterns = [
    path("", TemplateView.as_view(template_name="index.html"), name="index"),
    path("healthz", system.HealthView.as_view()),
    path("readyz", system.ReadyView.as_view(application_checks=[Check("master key", vault.ensure_key)])),
    path("metrics", system.MetricsView.as_view(text=metrics.TEXT)),
    path("auth/login", sign_in.LoginView.as_view(), name="login"),
    path("auth/callback", sign_in.CallbackView.as_view()),
    path("auth/device", device_sign_in.StartView.as_view()),
    path("auth/device/token", device_sign_in.TokenView.as_view()),
    path("auth/link/<str:secret>", sign_in.sign_in_with_link, name="sign-in-link"),
    path("agent/<str:name>", agent_package.download, name="agent-package"),
    path("api/schema", document.DocumentView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/redoc", SpectacularRedocView.as_view(url_name="schema"), name="redoc"),
    path("api/v1/", include(api)),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("admin/", site.urls),
]

handler400 = "apps.console.frame.refusals.bad_request"
handler403 = "apps.console.frame.refusals.forbidden"
handler404 = "apps.console.frame.refusals.not_found"
handler500 = "byteor_cloud.api.problems.server_error"
