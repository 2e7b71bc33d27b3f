"""Commands on chat webhooks."""

from __future__ import annotations

from apps.notifications.api.chat_serializers import ChatDeliverySerializer
from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services.chat import webhooks
from apps.tenancy.actors import Actor
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.commands import command
from byteor_cloud.api.operations import Operation
from byteor_cloud.errors import Conflict


@command()
@Operation("testChatWebhook", P.MANAGE_PROJECT, responses={202: ChatDeliverySerializer}, errors=(Conflict,))
def test(webhook: ChatWebhook, *, actor: Actor) -> ChatDelivery:
    """Send a test message to a chat webhook.

    Sends the message in the background, and returns its delivery. The chat webhook's list of deliveries shows the
    result. Returns 409 if the chat webhook is disabled.
    """
    return webhooks.test(webhook, actor=actor)
