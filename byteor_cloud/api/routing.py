"""Routes with one line per path, so that the URL files read as the API's table of contents."""

from __future__ import annotations

from django.urls import URLPattern, path

from byteor_cloud.api.view_sets import ResourceViewSet


def route(pattern: str, viewset: type[ResourceViewSet], **methods: str) -> URLPattern:
    """Route a path's methods to actions of a view set: ``route("orgs", V, get="list", post="create")``."""
    for action in methods.values():
        viewset.check_declared(action)
    return path(pattern, viewset.as_view(dict(methods)), name=f"{viewset.__name__}-{'-'.join(methods.values())}")
