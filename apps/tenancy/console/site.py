"""The console's admin site. Every member of an organization may enter; their roles decide what they see and do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.csp import CSP
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.csp import csp_override
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST
from unfold.sites import UnfoldAdminSite

from apps.tenancy import audit
from apps.tenancy.console import search
from apps.tenancy.console.console_user import actor_of, console_user_of
from apps.tenancy.models import User

# The sections of the menu, in the order of the main workflow.
SECTIONS = (
    "Workspace",
    "Pipelines",
    "Releases",
    "Fleet",
    "Incidents",
    "People and keys",
    "Audit",
    "Operation",
    "Records",
)
# The theme's Alpine.js needs `unsafe-eval`. No page outside the console permits it.
_CSP = {**settings.SECURE_CSP, "script-src": [CSP.SELF, CSP.UNSAFE_EVAL]}


class Console(UnfoldAdminSite):  # type: ignore[misc]  # untyped library
    """The admin site at /admin. The admin classes decide which rows a person sees."""

    site_title = site_header = "ByteOr Cloud"
    index_title = "Overview"

    def has_permission(self, request: HttpRequest) -> bool:
        """Admit members of at least one organization, and installation operators."""
        console_user = console_user_of(request)
        return console_user.is_superuser or bool(console_user.roles)

    def admin_view(self, view: Any, cacheable: bool = False) -> Callable[..., Any]:
        """Wrap a view of the console with the console's content security policy."""
        return csp_override(_CSP)(super().admin_view(view, cacheable))  # type: ignore[no-any-return]  # untyped

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the sign-in page: a button for the identity provider, or a hint about one-time links."""
        if self.has_permission(request):
            return HttpResponseRedirect(reverse("admin:index"))
        context = {
            "provider": bool(settings.CONFIG.oidc_issuer),
            "next": request.GET.get("next") or reverse("admin:index"),
        }
        return render(request, "sign_in.html", context)

    def get_urls(self) -> list[Any]:
        """Replace the logout view by one that also admits people without any role."""
        return [path("logout/", csrf_protect(self.logout), name="logout"), *super().get_urls()]

    @method_decorator(require_POST)
    def logout(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Sign out and record it."""
        if isinstance(request.user, User):
            user = request.user
            audit.record_of_person("session.sign_out", person=user, actor=actor_of(request), resource=("user", user.pk))
        logout(request)
        return HttpResponseRedirect(reverse("index"))

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Answer 404: nobody has a password."""
        raise Http404

    password_change_done = password_change

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return the menu: the tables that the person may see, grouped by section."""
        index = reverse("admin:index")
        groups: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
        for model, model_admin in self._registry.items():
            if not model_admin.has_module_permission(request):
                continue
            url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
            groups[model_admin.section].append(
                {
                    "title": model_admin.menu_title(),
                    "icon": model_admin.icon,
                    "link": url,
                    "active": request.path.startswith(url),
                    "has_permission": True,
                }
            )
        overview = {
            "title": "Overview",
            "icon": "dashboard",
            "link": index,
            "active": request.path == index,
            "has_permission": True,
        }
        listed = [
            {"title": section, "separator": True, "collapsible": section == "Records", "items": items}
            for section, items in groups.items()
            if items
        ]
        return [{"items": [overview]}, *listed]

    def search(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Answer the search over everything with the list that console.js shows."""
        pages = [item for group in self.get_sidebar_list(request) for item in group["items"]]
        found = search.search(request, pages, self._registry.values())
        return render(request, "console/found.html", {"found": found, "note": search.note(request, found)})

    def index(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the overview page with the tiles and panels of all visible tables."""
        admins = [each for each in self._registry.values() if each.has_module_permission(request)]
        context = {
            "tiles": [tile for each in admins for tile in each.tiles(request)],
            "panels": [panel for each in admins for panel in each.panels(request)],
            **(extra_context or {}),
        }
        return super().index(request, context)  # type: ignore[no-any-return]  # untyped library


site = Console(name="admin")
