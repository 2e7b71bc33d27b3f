"""Messages about invitations, and the sign-in links in their e-mails."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from django.urls import reverse

from apps.notifications.services.wording.content import Content, page_path
from apps.tenancy.actors import system_actor
from apps.tenancy.models import Membership, MessageEvent
from apps.tenancy.services import accounts


def describe_invitation(event: MessageEvent) -> Content | None:
    """Describe an invitation to an organization or a project. Returns None if the person is no longer a member."""
    if _find_membership(event) is None:
        return None
    place = str(event.organization)
    path = page_path("tenancy_organization", event.organization_id)
    if event.project is not None:
        place = f"the project {event.project} of {place}"
        path = page_path("tenancy_project", event.project_id)
    role = event.data["role"].replace("_", " ")
    return Content(f"{event.data['invited_by']} invited you to {place} as {role}.", path, "Open the console")


def with_link(event: MessageEvent, content: Content) -> Content:
    """Create the sign-in link for the e-mail about an invitation, and return the content with the link.

    Returns ``content`` unchanged if the person is no longer a member or the account must not get a link, for example
    because it is not active. The link works once, within 7 days. Whoever has it can sign in as the person, so call this
    only immediately before the e-mail is sent.
    """
    membership = _find_membership(event)
    secret = None
    if membership is not None:
        secret = accounts.create_invitation_link(membership.user, actor=system_actor("mail"))
    if secret is None:
        return content
    path, lines = reverse("sign-in-link", args=[secret]), ("The link works once, within 7 days.",)
    return replace(content, path=path, action="Accept the invitation", lines=lines)


def _find_membership(event: MessageEvent) -> Membership | None:
    rows = Membership.objects.filter(
        user=UUID(event.resource_id), organization=event.organization_id, project=event.project_id
    )
    return rows.select_related("user").first()
