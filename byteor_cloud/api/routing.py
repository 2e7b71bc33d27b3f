"""Routes with one line per path, so that the URL files read as the API's table of contents."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path
from rest_framework.viewsets import ViewSetMixin


def route(pattern: str, viewset: type[Any], **methods: str) -> URLPattern:
    """Route a path's methods to actions of a view set: ``route("orgs", V, get="list", post="create")``."""
    assert issubclass(viewset, ViewSetMixin)  # noqa: S101  a programming error otherwise
    return path(pattern, viewset.as_view(dict(methods)), name=f"{viewset.__name__}-{'-'.join(methods.values())}")
