"""The console's admin site. People with a role and installation operators may enter."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.csp import CSP
from django.utils.decorators import method_decorator
from django.utils.functional import cached_property
from django.views.decorators.cache import never_cache
from django.views.decorators.csp import csp_override
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST
from unfold.sites import UnfoldAdminSite

from apps.console.frame import search
from apps.console.frame.bell import Bell, counts_view
from apps.console.frame.console_user import actor_of, console_user_of
from apps.console.frame.frame_rows import FrameRows
from apps.console.frame.menu import RECORDS, build_menu, menu_item, page_admin, records, tabs
from apps.console.frame.scope import SCOPE, remembered_scope, set_scope, with_scope
from apps.console.frame.setup import Setup, SetupBar, set_setup
from apps.console.frame.switcher import Switcher
from apps.tenancy.models import User
from apps.tenancy.services import audit
from byteor_cloud.api import problems

# The theme's Alpine.js needs `unsafe-eval`. Pages outside the console do not permit it.
CONSOLE_CSP = {**settings.SECURE_CSP, "script-src": [CSP.SELF, CSP.UNSAFE_EVAL]}


class Console(UnfoldAdminSite):  # type: ignore[misc]  # untyped library
    """The admin site at /admin. The admin classes decide which rows a person sees."""

    site_title = site_header = "ByteOr Cloud"
    index_title = "Overview"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._pages: list[tuple[str, str, Callable[..., HttpResponse]]] = []
        # Returns the next step to the first deployment, if the session follows the steps. Set by the overview's pages.
        self.setup_bar: Callable[[HttpRequest], SetupBar | None] = lambda request: None

    def add_page(self, route: str, name: str, view: Callable[..., HttpResponse]) -> None:
        """Add a page that belongs to no table. Only people with access to the console can open it."""
        self._pages.append((route, name, view))

    def has_permission(self, request: HttpRequest) -> bool:
        """Return whether the person is an installation operator or has a role in an organization or project."""
        console_user = console_user_of(request)
        return console_user.is_superuser or bool(console_user.roles)

    def admin_view(self, view: Any, cacheable: bool = False) -> Callable[..., Any]:
        """Wrap a view: set the console's content security policy, and show a page if the HTTP method is not allowed."""
        inner = super().admin_view(view, cacheable)

        @wraps(view)
        def respond(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            response: HttpResponse = inner(request, *args, **kwargs)
            if not isinstance(response, HttpResponseNotAllowed):
                return response
            text = "This URL belongs to a form or a button. Open the page that contains the form or button."
            page = self.refuse(request, 405, "Not a page", text)
            if page is None:
                return response
            page["Allow"] = response["Allow"]
            return page

        return csp_override(CONSOLE_CSP)(respond)

    def refuse(
        self, request: HttpRequest, status: int, title: str, explain: str | Callable[[Any], str]
    ) -> HttpResponse | None:
        """Return a page that explains a refusal.

        Returns None if the URL is outside of the console, if the request does not accept HTML, or if no person who may
        enter the console is known. ``explain`` is the text, or a function that receives the page's table (or None) and
        returns the text.
        """
        if not request.path.startswith(reverse("admin:index")) or not problems.accepts_html(request):
            return None
        if not hasattr(request, "user") or not self.has_permission(request):
            return None
        set_scope(request, None)  # the person may not be permitted to see the scope in the URL
        here = page_admin(self, request)
        context = {
            **self.each_context(request),
            "title": title,
            "text": explain if isinstance(explain, str) else explain(here),
            "list": here if here is not None and here.has_view_permission(request) else None,
            "request_id": request.META.get("HTTP_X_REQUEST_ID"),
        }
        return csp_override(CONSOLE_CSP)(render)(request, "console/refused.html", context, status=status)

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show how to sign in, or how a signed-in person gets access. Redirect people with access to the overview."""
        if self.has_permission(request):
            return HttpResponseRedirect(reverse("admin:index"))
        context = {
            "provider": bool(settings.CONFIG.oidc_issuer),
            "next": request.GET.get("next") or reverse("admin:index"),
        }
        return render(request, "sign_in.html", context)

    def get_urls(self) -> list[Any]:
        """Add the console's own pages. People without a role may sign out and create an organization.

        Django's page ``view_on_site`` is left out, because it reveals whether a row with a given id exists.
        """
        start = never_cache(csrf_protect(csp_override(CONSOLE_CSP)(self.start_view)))
        return [
            path("logout/", csrf_protect(self.logout), name="logout"),
            path("start/", start, name="start"),
            path("records/", self.admin_view(self.records_view), name="records"),
            path("notifications/counts/", self.admin_view(counts_view), name="notification_counts"),
            *(path(route, self.admin_view(view), name=name) for route, name, view in self._pages),
            *(each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"),
        ]

    @method_decorator(require_POST)
    def logout(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Sign the person out. If somebody was signed in, record an audit event."""
        if isinstance(request.user, User):
            user = request.user
            audit.record_of_person("session.sign_out", person=user, actor=actor_of(request), resource=("user", user.pk))
        logout(request)
        return HttpResponseRedirect(reverse("index"))

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Return 404, because accounts have no password."""
        raise Http404

    password_change_done = password_change

    # -- the frame of every page ---------------------------------------------------------------------------------

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Return the context of every page's frame: its menu, switcher, tabs, bell and setup bar.

        A person without access to the console gets a menu with only the entry "Create organization".
        """
        if not self.has_permission(request):  # a person without an organization, on the page that creates one
            start = menu_item("Create organization", "domain_add", reverse("admin:start"), None, active=True)
            return {**self._theme, "sidebar_navigation": [{"items": [start]}]}
        here, rows = page_admin(self, request), FrameRows(request)
        return {
            **self._theme,
            "has_permission": True,
            "sidebar_navigation": build_menu(self, request),
            "switcher": Switcher(request, here, rows.choices),
            "tabs": tabs(self, request),
            "page_admin": here,
            "bell": Bell(rows.counts),
            "frame_rows": rows,
            "setup": self.setup_bar(request),
        }

    @cached_property
    def _theme(self) -> dict[str, Any]:
        """The part of the theme's context that is the same for all people and pages, computed only once."""
        nobody = HttpRequest()
        nobody.META["SCRIPT_NAME"], nobody.user = "", AnonymousUser()
        shown: dict[str, Any] = super().each_context(nobody)
        return shown

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return no apps, because the console's own menu lists the tables."""
        return []

    def search(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Return the results of the global search as the HTML list that console.js shows."""
        found = search.search(request, self._registry.values())
        return render(request, "console/found.html", {"found": found, "note": search.note(request, found)})

    def index(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the overview. Without a scope in the URL, redirect to the session's last scope, if any.

        The theme gets the content from ``apps.console.pages.home``, which the setting ``DASHBOARD_CALLBACK`` names.
        """
        if SCOPE not in request.GET and (last := remembered_scope(request)) is not None:
            return HttpResponseRedirect(with_scope(reverse("admin:index"), last))
        return super().index(request, extra_context)  # type: ignore[no-any-return]  # untyped library

    def app_index(self, request: HttpRequest, app_label: str, extra_context: Any = None) -> HttpResponse:
        """Return 404, because the console has no pages of apps: the menu lists the tables."""
        raise Http404

    def records_view(self, request: HttpRequest) -> HttpResponse:
        """Show the tables that belong to no other menu entry, each with a description."""
        context = {**self.each_context(request), "title": RECORDS, "records": records(self, request)}
        return TemplateResponse(request, "console/tables.html", context)

    def start_view(self, request: HttpRequest) -> HttpResponse:
        """Let any active person create an organization, even if they belong to none."""
        if not isinstance(request.user, User) or not request.user.is_active:
            return HttpResponseRedirect(reverse("admin:login"))
        if not self.has_permission(request):
            set_setup(request, Setup.FOLLOWED)  # so that the form of the next step follows
        people = self.get_model_admin(User)
        return people.act_view(request, str(request.user.pk), "create_organization")  # type: ignore[no-any-return]


site = Console(name="admin")


def listed_rows(request: HttpRequest, model: type[Model]) -> QuerySet[Any]:
    """Return the visible rows of a table; on pages that limit their rows (``list_scope_of``), those in the scope."""
    return site.get_model_admin(model).get_queryset(request)  # type: ignore[no-any-return]  # untyped library
