"""The console's site: every member may enter, and sees and does what their roles permit."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.shortcuts import render
from unfold.sites import UnfoldAdminSite

from apps.tenancy.models import User


class Console(UnfoldAdminSite):  # type: ignore[misc]  # untyped library
    """Signed in and a member of some organization is enough; the admin classes narrow by organization and role."""

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether the person may enter at all."""
        user = request.user
        return isinstance(user, User) and user.is_active and (user.is_superuser or user.memberships.exists())

    def login(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """There are no passwords: to the provider, or to a page that tells of the one-time link."""
        return render(request, "sign_in.html")


site = Console(name="admin")
