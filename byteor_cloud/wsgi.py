"""The WSGI application, which gunicorn serves."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import reverse
from django.utils.module_loading import import_string

from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import PROCESS_KIND_VARIABLE

os.environ[PROCESS_KIND_VARIABLE] = "api"
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "byteor_cloud.settings")
# ``AgentPath`` handles the requests that agents send continually, and passes all others to Django.
_django = get_wsgi_application()
_agent_path = import_string(settings.AGENT_PATH)(_django)
# Import all views. Otherwise the first request of each process would do so and delay all others by 0.3 s.
reverse("index")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Respond to a request. Limit the total time that it waits for the database and other requests (``deadline``)."""
    with deadline.limited(deadline.REQUEST_S):
        response: Iterable[bytes] = _agent_path(environ, start_response)
        return response
