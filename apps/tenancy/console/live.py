"""A row's page that moves by itself: its summary is a fragment that the browser asks for again while things happen."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET

from apps.tenancy.console.base import ReadOnlyAdmin


class LiveAdmin(ReadOnlyAdmin):
    """A table whose rows' pages show ``live_template``, which has one element at its top, and the acts in it."""

    live_template: ClassVar[str]
    # Shown below it, once: what does not change while one looks.
    still_template: ClassVar[str]
    every_s: ClassVar[int] = 2
    change_form_outer_before_template = "console/live.html"
    acts_in_header = False

    def is_moving(self, row: Any) -> bool:
        """Whether the page is worth asking for again."""
        raise NotImplementedError  # pragma: no cover  every subclass says it

    def get_urls(self) -> list[Any]:
        """With the fragment."""
        live = self.admin_site.admin_view(self.live_view)
        return [path("<uuid:pk>/live/", live, name=self._live_name()), *super().get_urls()]

    def _live_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_live"

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the live part shows."""
        return {"moving": self.is_moving(row)}

    def still(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the part below it shows."""
        return {}

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, obj: Any = None, **kwargs: Any) -> Any:
        """With both parts."""
        context["live"] = {
            "template": self.live_template,
            "url": reverse(f"admin:{self._live_name()}", args=[obj.pk]),
            "every_s": self.every_s,
        }
        context["still"] = {"template": self.still_template, **self.still(request, obj)}
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    @method_decorator(require_GET)
    def live_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The live part as it is now: by the same narrowing and permissions as the page."""
        row = self.get_object(request, str(pk)) if self.has_view_permission(request) else None
        if row is None:
            raise Http404
        context = {"original": row, "acts": self._buttons(request, row), "summary": self._summary(request, row)}
        return TemplateResponse(request, self.live_template, context)
