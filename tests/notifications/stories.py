"""Steps that tests of messages share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.utils import timezone

from apps.notifications.models import Notification
from apps.notifications.services import handling
from apps.notifications.services.mail import sending
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, User
from apps.tenancy.permissions import Role
from byteor_cloud import config
from byteor_cloud.worker.jobs import Claim
from tests.smtp_server import PASSWORD, USER, SmtpServer
from tests.worlds import ALL, Person, World

MAIL_FROM, BASE_URL = "ByteOr Cloud <byteor@cloud.example>", "https://cloud.example"


def claim_all() -> None:
    """Pretend that everybody has signed in. People who have not are notified only of their invitations.

    Also delete all events about invitations, which tests of other events do not expect.
    """
    MessageEvent.objects.filter(type=MessageType.INVITATION).delete()
    User.objects.filter(last_login=None).update(last_login=timezone.now())


def member(world: World, role: Role, name: str) -> Person:
    """Add a member, and pretend that everybody has signed in, as ``claim_all`` does."""
    person = world.person(role, name)
    claim_all()
    return person


def ask(world: World, bundle: ConfigBundle, **body: Any) -> Deployment:
    """Let the operator request a deployment to all agents."""
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, **body}
    response = world.operator.api.post(world.path(bundle.environment, "/deployments"), body)
    assert response.status_code == 201, response.json()
    return Deployment.objects.get(pk=response.json()["id"])


def handle(world: World) -> None:
    """Handle the organization's new events, as the worker does."""
    handling.handle_pending(world.organization.pk)


def notified_of(person: Person) -> list[str]:
    """Return the types of the events that the person was notified about, oldest first."""
    return [
        row.event.type for row in Notification.objects.filter(user=person.user).select_related("event").order_by("pk")
    ]


def use_mail_server(settings: Any, server: SmtpServer) -> None:
    """Set the installation's mail server, the sender of e-mails and the public URL."""
    host = config.SmtpServer(server.host, server.port, server.security, USER, PASSWORD)
    settings.CONFIG = replace(settings.CONFIG, smtp_url=host, mail_from=MAIL_FROM, public_base_url=BASE_URL)


def send(world: World) -> None:
    """Send the organization's due e-mails, as the worker does."""
    sending.send_due(world.organization.pk, Claim())
