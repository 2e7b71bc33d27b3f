"""The application and its yardsticks on one server.

``/bare`` is a Django view that responds ``ok``, without any middleware. ``/stock`` is a heartbeat in plain DRF with the
middleware of a new Django project.
"""

from __future__ import annotations

from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.test.utils import override_settings

from byteor_cloud.wsgi import application as product

_DEFAULT_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
with override_settings(MIDDLEWARE=[]):
    _bare = WSGIHandler()
with override_settings(MIDDLEWARE=_DEFAULT_MIDDLEWARE):
    _stock = WSGIHandler()


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """Serve a request."""
    path = environ["PATH_INFO"]
    chosen: Any = _bare if path.startswith("/bare") else _stock if path.startswith("/stock") else product
    return chosen(environ, start_response)
