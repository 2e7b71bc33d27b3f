"""Django's settings, derived from the operator's settings (``config.load``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django.utils.csp

from byteor.engine import machines
from byteor.engine.replay.json_difference import Kind
from byteor.engine.replay_gate import GateMode
from byteor.engine.rollout import Hold
from byteor_cloud import config, logs
from byteor_cloud.api.operations import SECURITY_SCHEMES, TAG_DESCRIPTIONS
from byteor_cloud.database import connections

CONFIG = config.load(os.environ)
BASE_DIR = Path(__file__).resolve().parent.parent
# The environment variable with the embedded database's URL. ``command_line`` sets it; child processes inherit it.
EMBEDDED_URL = "BYTEOR_EMBEDDED_DATABASE_URL"

SECRET_KEY = CONFIG.secret_key
DEBUG = False
_public = urlsplit(CONFIG.public_base_url or "")
_bind_host = CONFIG.api_bind_addr[0]
ALLOWED_HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    *([_bind_host] if _bind_host not in {"0.0.0.0", "::"} else []),  # noqa: S104 - a comparison, not a bind
    *([_public.hostname] if _public.hostname else []),
]
# Some browsers send secure cookies only over TLS, so plain HTTP on the loopback interface needs ordinary cookies.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _public.scheme == "https"
SESSION_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "apps.console.frame.refusals.csrf_failure"
CSRF_TRUSTED_ORIGINS = [CONFIG.public_base_url] if CONFIG.public_base_url else []
if CONFIG.trusted_proxies:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
_self = django.utils.csp.CSP.SELF
SECURE_CSP: dict[str, Any] = {
    "default-src": [_self],
    "img-src": [_self, "data:"],
    "style-src": [_self, django.utils.csp.CSP.UNSAFE_INLINE],  # Swagger UI and Redoc set style attributes
    "worker-src": [_self, "blob:"],  # Redoc's search index
    "frame-ancestors": [django.utils.csp.CSP.NONE],
    "base-uri": [_self],
    "form-action": [_self],
    "object-src": [django.utils.csp.CSP.NONE],
}

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin.apps.SimpleAdminConfig",  # no autodiscovery: byteor_cloud.urls imports the console
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.forms",  # contains the templates for FORM_RENDERER
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_prometheus",
    "social_django",
    "procrastinate.contrib.django",
    "apps.tenancy",
    "apps.pipelines",
    "apps.fleet",
    "apps.releases",
    "apps.artifacts",
    "apps.notifications",
    "apps.operations",
    "apps.console",
]

MIDDLEWARE = [
    "byteor_cloud.api.compression.compress_html",
    "byteor_cloud.api.bodies.finish_response",
    "byteor_cloud.api.middleware.set_request_id",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "apps.fleet.api.anonymous.limit_anonymous_callers",  # before the access log, which refused callers must not flood
    "byteor_cloud.api.system.log_request",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "byteor_cloud.api.system.CountRequests",
    "byteor_cloud.api.middleware.refuse_writes_without_space",
    "byteor_cloud.api.request_slots.hold_slot",
    "apps.console.frame.limit.limit_people",
    "byteor_cloud.api.bodies.receive_form",
]
APPEND_SLASH = False
ROOT_URLCONF = "byteor_cloud.urls"
WSGI_APPLICATION = "byteor_cloud.wsgi.application"
AGENT_PATH = "apps.releases.api.agent_path.application.AgentPath"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "byteor_cloud/templates"],
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    ["django.template.loaders.filesystem.Loader", "apps.console.theme.CorrectedTheme"],
                )
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# Load the templates of form widgets with the same loaders.
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

_url = CONFIG.database_url or os.environ.get(EMBEDDED_URL, "postgresql:///byteor_cloud")
DATABASES = {"default": connections.database_settings(_url, threads=CONFIG.api_threads)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "tenancy.User"
AUTHENTICATION_BACKENDS = [
    "apps.tenancy.sessions.Accounts",
    "django.contrib.auth.backends.ModelBackend",  # for sessions that older releases created
    "apps.tenancy.sign_in.OpenIdConnect",
]
SESSION_ENGINE = "apps.tenancy.sessions"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = CONFIG.data_dir / "static"
# ``serve`` sets this environment variable for the API if static files could not be collected, as on a full disk.
STATIC_FROM_SOURCES = "BYTEOR_STATIC_FROM_SOURCES"
WHITENOISE_USE_FINDERS = STATIC_FROM_SOURCES in os.environ
STATICFILES_DIRS = [BASE_DIR / "byteor_cloud" / "static"]

_artifacts: dict[str, Any]
if CONFIG.s3_bucket:
    _artifacts = {
        "BACKEND": "byteor_cloud.storage.object_storage.ObjectStorage",
        "OPTIONS": {
            "bucket": CONFIG.s3_bucket,
            "endpoint_url": CONFIG.s3_endpoint_url,
            "region": CONFIG.s3_region,
        },
    }
else:
    _artifacts = {
        "BACKEND": "byteor_cloud.storage.file_storage.AtomicFileStorage",
        "OPTIONS": {"location": CONFIG.data_dir / "artifacts", "allow_overwrite": True},
    }
STORAGES = {
    "default": _artifacts,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
FILE_UPLOAD_TEMP_DIR = str(CONFIG.data_dir / "uploads")
SILENCED_SYSTEM_CHECKS = ["files.E001"]  # ``data_folders`` creates the folder
FILE_UPLOAD_HANDLERS: list[str] = []  # no form accepts files, and the artifact upload's parser has its own handler
# For forms outside the API, and for the fields of an upload, without its file. The parser of JSON bodies enforces its
# own limit.
DATA_UPLOAD_MAX_MEMORY_SIZE = CONFIG.max_body_bytes

REST_FRAMEWORK = {
    # Every view that needs a credential recognizes all families of credentials, and declares which ones it accepts
    # (apps.tenancy.api.base).
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.tenancy.api.authentication.UserTokenAuthentication",
        "apps.tenancy.api.authentication.OrganizationKeyAuthentication",
        "apps.fleet.api.authentication.EnrollmentTokenAuthentication",
        "apps.fleet.api.authentication.AgentKeyAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["byteor_cloud.api.rendering.PausingJSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["byteor_cloud.api.parsers.StrictJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "byteor_cloud.api.pagination.NewestFirst",
    "DEFAULT_SCHEMA_CLASS": "byteor_cloud.api.schema.operations.Schema",
    "EXCEPTION_HANDLER": "byteor_cloud.api.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "NUM_PROXIES": CONFIG.trusted_proxies,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "ByteOr Cloud",
    "DESCRIPTION": (Path(__file__).parent / "api/schema/introduction.md").read_text(encoding="utf-8"),
    "TAGS": [{"name": str(tag), "description": text} for tag, text in TAG_DESCRIPTIONS.items()],
    "SERVERS": [{"url": "/", "description": "This server."}],
    "APPEND_COMPONENTS": {"securitySchemes": SECURITY_SCHEMES},
    # The JavaScript is in static/byteor/docs.js.
    "SWAGGER_UI_SETTINGS": (
        "{deepLinking: true, filter: true, syntaxHighlight: {theme: 'obsidian'}, plugins: [accessibleDocs]}"
    ),
    "VERSION": "v1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    # Several schemas use each of these enums, so drf-spectacular cannot derive the name from one schema.
    "ENUM_NAME_OVERRIDES": {
        "SigningKeyStatusEnum": ["next", "active", "retiring", "retired"],
        "ArtifactStatusEnum": ["received", "verified", "rejected"],
        "ArtifactKindEnum": "apps.artifacts.models.Artifact.Kind",
        "ApprovalStatusEnum": [*map(str, machines.ApprovalStatus)],
        "BisectOutcomeEnum": ["found", "no_change", "inverted", "inconclusive"],
        "BisectStatusEnum": [*map(str, machines.BisectStatus)],
        "GateModeEnum": [*map(str, GateMode)],
        "HoldEnum": [*map(str, Hold)],
        "DifferenceGroupKindEnum": [*map(str, Kind)],
        "DeploymentStatusEnum": [*map(str, machines.DeploymentStatus)],
        "RegressionStatusEnum": [*map(str, machines.RegressionStatus)],
        "ReplayModeEnum": "apps.artifacts.models.Replay.Mode",
        "ReplayStatusEnum": [*map(str, machines.ReplayStatus)],
        "ChatFormatEnum": ["slack", "mattermost"],
        "ChatEventsEnum": "apps.notifications.services.chat.deliveries.EVENTS",
        "EventsEnum": "apps.tenancy.webhook_events.PATTERNS",
        "WebhookDeliveryStatusEnum": ["pending", "delivered", "failed"],
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "WEBHOOKS": ["apps.tenancy.api.views.webhooks.EVENT"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "byteor_cloud.api.schema.examples.add_examples",
        "byteor_cloud.api.schema.operations.order_security_schemes",
    ],
}

# OpenID Connect (apps.tenancy.sign_in). Without a load_extra_data step the provider's tokens are not stored.
SOCIAL_AUTH_OIDC_OIDC_ENDPOINT = CONFIG.oidc_issuer
SOCIAL_AUTH_OIDC_KEY = CONFIG.oidc_client_id
SOCIAL_AUTH_OIDC_SECRET = CONFIG.oidc_client_secret
SOCIAL_AUTH_OIDC_USE_PKCE = True
SOCIAL_AUTH_OIDC_SCOPE = ["openid", "email", "profile"]
SOCIAL_AUTH_JSONFIELD_ENABLED = True
LOGIN_REDIRECT_URL = "/admin/"  # also used instead of a ``next`` parameter that points to another site
SOCIAL_AUTH_PIPELINE = [
    "social_core.pipeline.social_auth.social_details",
    "social_core.pipeline.social_auth.social_uid",
    "social_core.pipeline.social_auth.auth_allowed",
    "social_core.pipeline.social_auth.social_user",
    "apps.tenancy.sign_in.find_or_bind_account",
]

PROMETHEUS_EXPORT_MIGRATIONS = False
PROMETHEUS_METRIC_NAMESPACE = "byteor"

logs.configure()
LOGGING = logs.logging_settings(CONFIG.log_format)

UNFOLD: dict[str, Any] = {
    "DASHBOARD_CALLBACK": "apps.console.pages.home.page.overview",
    "SITE_TITLE": "ByteOr Cloud",
    "SITE_HEADER": "ByteOr Cloud",
    "SITE_SUBHEADER": "Console",
    "SITE_ICON": lambda request: f"{STATIC_URL}byteor/logo.svg",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: f"{STATIC_URL}byteor/logo.svg"},
    ],
    "STYLES": [
        lambda request: f"{STATIC_URL}byteor/console.css",
        lambda request: f"{STATIC_URL}byteor/frame.css",
        lambda request: f"{STATIC_URL}byteor/shortcuts.css",
    ],
    "SCRIPTS": [
        lambda request: f"{STATIC_URL}byteor/console.js",
        lambda request: f"{STATIC_URL}byteor/frame.js",
        lambda request: f"{STATIC_URL}byteor/shortcuts.js",
    ],
    "SIDEBAR": {"show_search": True},
    "SHOW_HISTORY": False,
    "COLORS": {
        "primary": {
            "50": "oklch(96.2% .018 272.314)",
            "100": "oklch(93% .034 272.788)",
            "200": "oklch(87% .065 274.039)",
            "300": "oklch(78.5% .115 274.713)",
            "400": "oklch(67.3% .182 276.935)",
            "500": "oklch(58.5% .233 277.117)",
            "600": "oklch(51.1% .262 276.966)",
            "700": "oklch(45.7% .24 277.023)",
            "800": "oklch(39.8% .195 277.366)",
            "900": "oklch(35.9% .144 278.697)",
            "950": "oklch(25.7% .09 281.288)",
        }
    },
}
