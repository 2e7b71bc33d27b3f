"""The application and its yardsticks on one server.

``/bare`` is a Django view that responds ``ok``, without any middleware. ``/stock`` is a heartbeat in plain DRF with the
middleware of a new Django project. With the environment variable in ``WITHOUT_SERIES``, heartbeats gather no series.
"""

from __future__ import annotations

import os
import re
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.test.utils import override_settings

from byteor_cloud.wsgi import application as product
from tests.bench.settings import WITHOUT_SERIES

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
if WITHOUT_SERIES in os.environ:
    from apps.fleet.services import heartbeats  # can be imported only after ``product`` has set up Django
    from byteor_cloud.database.connections import FrequentStatement

    # Without these columns, PostgreSQL runs the statement as if there were no series.
    _plain, _found = re.subn(r",\s+series_slot = .*?(?=\nFROM locked b)", "", heartbeats._SQL, flags=re.DOTALL)
    _plain, _read = re.subn(r", readings float8\[\]", "", _plain)
    assert (_found, _read) == (1, 1)  # otherwise the benchmark would compare two equal statements
    heartbeats._statement = FrequentStatement(_plain)
    heartbeats.__dict__["readings"] = lambda report, boot_id: []


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """Serve a request."""
    path = environ["PATH_INFO"]
    chosen: Any = _bare if path.startswith("/bare") else _stock if path.startswith("/stock") else product
    return chosen(environ, start_response)
