"""``/api/schema``: the OpenAPI document, generated once per process."""

from __future__ import annotations

import gzip
import hashlib
import threading
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from byteor_cloud.api.compression import accepts_gzip
from byteor_cloud.api.etags import matches_tag
from byteor_cloud.api.system import OpenView
from byteor_cloud.errors import InvalidInput

_RENDERERS: dict[str, Any] = {"yaml": OpenApiYamlRenderer, "json": OpenApiJsonRenderer}


class _Rendered(NamedTuple):
    content: bytes
    compressed: bytes
    content_type: str
    etag: str


_made: dict[str, _Rendered] = {}
_lock = threading.Lock()


def _rendered() -> dict[str, _Rendered]:
    """Return the document in each format. The first call in a process generates it."""
    with _lock:
        if not _made:
            document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
            for name, renderer in _RENDERERS.items():
                content = renderer().render(document, renderer_context={})
                etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: shared by the compressed response
                _made[name] = _Rendered(content, gzip.compress(content, mtime=0), renderer.media_type, etag)
    return _made


def _format(request: HttpRequest) -> str:
    """Return the format in ``?format=``. Without it, return JSON if the Accept header names JSON, otherwise YAML.

    Raises InvalidInput for an unknown format.
    """
    requested = request.GET.get("format")
    if requested is None:
        return "json" if "json" in request.headers.get("Accept", "").lower() else "yaml"
    if requested not in _RENDERERS:
        raise InvalidInput.at_parameter("format", f"Must be one of {', '.join(_RENDERERS)}.")
    return requested


class DocumentView(OpenView):
    """The OpenAPI document of this service."""

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Return the document, or 304 if the caller has the current document already."""
        rendered = _rendered()[_format(request._request)]
        headers = {"ETag": rendered.etag, "Cache-Control": "public, max-age=300", "Vary": "Accept, Accept-Encoding"}
        if matches_tag(request.headers.get("If-None-Match", ""), rendered.etag):
            return HttpResponse(status=304, headers=headers)
        if accepts_gzip(request._request):
            headers["Content-Encoding"] = "gzip"
            return HttpResponse(rendered.compressed, content_type=rendered.content_type, headers=headers)
        return HttpResponse(rendered.content, content_type=rendered.content_type, headers=headers)
