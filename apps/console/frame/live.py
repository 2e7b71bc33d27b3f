"""Pages that update themselves: the browser reloads parts of a row's page while the row may change."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET

from apps.console.frame.base import LIVE_PARTS, ReadOnlyAdmin
from apps.console.frame.columns import page_url


class LiveAdmin(ReadOnlyAdmin):
    """A table whose rows have self-updating pages. ``live_template`` must have one root element and show the acts."""

    live_template: ClassVar[str]
    # The part below ``live_template``. It is slow to render, so the browser reloads it only when the row stops moving,
    # and when the attribute ``data-still`` of the root element of ``live_template`` changes. Empty if the page has no
    # such part.
    still_template: ClassVar[str] = ""
    # The part beside or below ``still_template``, with one root element of the class "rest". It is reloaded as often as
    # ``live_template``.
    rest_template: ClassVar[str] = ""
    every_s: ClassVar[int] = 2
    change_form_outer_before_template = "console/live.html"
    acts_in_header = False

    def is_moving(self, row: Any) -> bool:
        """Return whether the row is expected to change. While this is true, the browser reloads the page's parts."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it

    def get_urls(self) -> list[Any]:
        """Return the URLs of the table and of the parts that are reloaded."""
        live = self.admin_site.admin_view(self.live_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_live"
        return [path("<uuid:pk>/live/", live, name=name), *super().get_urls()]

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the context of ``live_template``."""
        return {"moving": self.is_moving(row)}

    def still(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the context of ``still_template``."""
        return {}

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Show the row's page with its live templates, or only the parts that are reloaded."""
        context["live"] = {
            "template": self.live_template,
            "rest": self.rest_template,
            "url": page_url(self.model, "live", obj.pk),
            "every_s": self.every_s,
        }
        response = super().render_change_form(request, context, *args, obj=obj, **kwargs)
        if LIVE_PARTS in context:
            response.template_name = "console/live_parts.html"
        if not self.still_template:
            return response
        if LIVE_PARTS not in context or not context["summary"]["moving"] or "still" in request.GET:
            response.context_data["still"] = {"template": self.still_template, **self.still(request, obj)}
        return response

    @method_decorator(require_GET)
    def live_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the parts with the row's current state. The status is 404 if the person may not see the page."""
        if not self.has_view_permission(request):
            raise Http404
        return self.change_view(request, str(pk), extra_context={LIVE_PARTS: True})  # type: ignore[no-any-return]  # untyped base
