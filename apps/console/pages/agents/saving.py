"""The forms that save and delete a person's searches for agents."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode
from django.views.decorators.http import require_POST

from apps.console.frame import site
from apps.console.frame.columns import list_url
from apps.console.frame.console_user import console_user_of, user_of
from apps.console.frame.scope import lineage, scope_of, with_scope
from apps.fleet.models import Agent
from apps.fleet.services import saved_searches
from apps.tenancy.models import Organization
from byteor_cloud.errors import DomainError


def organization_of_searches(request: HttpRequest) -> Organization | None:
    """Return the organization whose saved searches the page shows: that of the scope, or the person's only one.

    Returns None without a scope if the person has no organization or several.
    """
    scope = scope_of(request)
    if scope is not None:
        top = lineage(scope)[0]
        assert isinstance(top, Organization)  # noqa: S101  for mypy: a lineage starts with an organization
        return top
    own = list(console_user_of(request).roles)
    return Organization.objects.filter(pk=own[0]).first() if len(own) == 1 else None


@require_POST
def save_view(request: HttpRequest) -> HttpResponse:
    """Save the search ``query`` under the name in the form."""
    organization = organization_of_searches(request)
    if organization is None:
        raise Http404("Choose an organization first, because searches are saved for an organization.")
    query, name = request.POST.get("query", "").replace("\0", "").strip(), request.POST.get("name", "")
    try:
        saved = saved_searches.save_search(user_of(request), organization, name=name, query=query)
    except DomainError as error:
        messages.error(request, error.detail)
    else:
        messages.success(request, f"Search {saved.name} saved.")
    return _back(request, query)


@require_POST
def delete_view(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Delete one of the person's saved searches."""
    try:
        saved_searches.delete_search(user_of(request), pk)
    except DomainError as error:
        raise Http404(error.detail) from error
    messages.success(request, "Saved search deleted.")
    return _back(request, request.POST.get("query", ""))


def _back(request: HttpRequest, query: str) -> HttpResponse:
    """Redirect to the list of agents with the search."""
    url = list_url(Agent)
    return HttpResponseRedirect(with_scope(f"{url}?{urlencode({'q': query})}" if query else url, scope_of(request)))


site.add_page("agents/searches/", "agent_searches", save_view)
site.add_page("agents/searches/<uuid:pk>/delete/", "agent_search_delete", delete_view)
