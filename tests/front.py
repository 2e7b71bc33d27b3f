"""A Django test client whose requests pass through the agent path's WSGI layer, as in a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import Client
from django.test.client import ClientHandler
from django.utils.module_loading import import_string


class _ToDjango(Exception):
    """Raised when the layer passes a request to Django."""


def _django(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    raise _ToDjango


class FrontHandler(ClientHandler):
    """Django's test handler behind the layer. The handler and the layer use the test's database connection."""

    _loaded: ClassVar[Any] = None  # the loaded middleware, which all handlers of a process share, as in a server
    _middleware_chain: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._layer = import_string(settings.AGENT_PATH)(_django)
        self.answered = 0  # the number of requests that the layer did not pass to Django

    def load_middleware(self, is_async: bool = False) -> None:
        if FrontHandler._loaded is None:
            super().load_middleware(is_async)
            FrontHandler._loaded = self._middleware_chain
        self._middleware_chain = FrontHandler._loaded

    def __call__(self, environ: dict[str, Any]) -> Any:
        response = HttpResponse()

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            response.status_code = int(status.split(maxsplit=1)[0])
            del response["Content-Type"]
            for name, value in headers:
                response[name] = value

        environ.setdefault("HTTP_HOST", "testserver")
        try:
            response.content = b"".join(self._layer(environ, start_response))
        except _ToDjango:
            return super().__call__(environ)
        self.answered += 1
        response.wsgi_request = WSGIRequest(environ)  # type: ignore[attr-defined]  # ClientHandler sets the attribute
        return response


class FrontClient(Client):
    """A Django test client that uses ``FrontHandler``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handler: FrontHandler = FrontHandler(self.handler.enforce_csrf_checks)
