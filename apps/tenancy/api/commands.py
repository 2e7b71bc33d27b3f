"""Commands on signing keys, webhooks and webhook deliveries."""

from __future__ import annotations

from apps.tenancy.actors import Actor
from apps.tenancy.api.serializers.signing_keys import (
    RetireSigningKeySerializer,
    RotateSigningKeySerializer,
    SigningKeySerializer,
)
from apps.tenancy.api.serializers.webhooks import WebhookDeliverySerializer, WebhookSerializer
from apps.tenancy.models import Organization, SigningKey, Webhook, WebhookDelivery
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import signing_keys
from apps.tenancy.services.webhooks import subscriptions
from byteor_cloud.api.commands import command
from byteor_cloud.api.mixins import Created
from byteor_cloud.api.operations import Operation
from byteor_cloud.api.schema.responses import with_secret
from byteor_cloud.errors import Conflict


@command()
@Operation(
    "rotateSigningKey",
    P.MANAGE_ORG_MEMBERSHIPS,
    body=RotateSigningKeySerializer,
    responses={201: SigningKeySerializer},
    errors=(Conflict,),
    example={"activate_in_s": 3600},
)
def rotate(organization: Organization, *, actor: Actor, **times: int) -> SigningKey:
    """Rotate the signing key.

    Publishes a new key, which starts to sign after `activate_in_s` seconds. From then on, the previous key only
    verifies signatures. After another `retire_in_s` seconds it is retired, and only verifies signatures that contain a
    time before its retirement. Returns 409 if a `next` key already exists.
    """
    return signing_keys.rotate(organization=organization, actor=actor, **times)


@command()
@Operation(
    "retireSigningKey",
    P.MANAGE_ORG_MEMBERSHIPS,
    body=RetireSigningKeySerializer,
    errors=(Conflict,),
    example={"reason": "The key is no longer needed."},
)
def retire(key: SigningKey, *, reason: str, actor: Actor) -> None:
    """Retire a signing key.

    Retires a `retiring` key immediately, or withdraws the `next` key. A signature that contains its time still verifies
    if it was made before the key was retired. Returns 409 for a key that is `active` or already `retired`.
    """
    signing_keys.retire(key, reason=reason, actor=actor)


@command()
@Operation(
    "rotateWebhookSecret", P.MANAGE_ORG_MEMBERSHIPS, responses={201: with_secret(WebhookSerializer)}, holds_secret=True
)
def rotate_secret(webhook: Webhook, *, actor: Actor) -> Created:
    """Rotate a webhook's secret.

    Returns a new secret. For 24 hours or until the next rotation, each delivery is signed with both the new and the
    previous secret, so that receivers can switch to the new secret without losing a delivery.
    """
    changed, secret = subscriptions.rotate_secret(webhook, actor=actor)
    return Created(changed, {"token": secret})


@command()
@Operation("testWebhook", P.MANAGE_ORG_MEMBERSHIPS, responses={202: WebhookDeliverySerializer}, errors=(Conflict,))
def test(webhook: Webhook, *, actor: Actor) -> WebhookDelivery:
    """Send a test event to a webhook.

    Sends an event of type `ping` to the webhook in the background. The result appears in the webhook's list of
    deliveries. Returns 409 if the webhook is disabled.
    """
    return subscriptions.ping(webhook, actor=actor)


@command()
@Operation(
    "redeliverWebhookDelivery", P.MANAGE_ORG_MEMBERSHIPS, responses={202: WebhookDeliverySerializer}, errors=(Conflict,)
)
def redeliver(delivery: WebhookDelivery, *, actor: Actor) -> WebhookDelivery:
    """Repeat a delivery.

    Sends the event again in the background, with the same `webhook-id`, by which the receiver can recognize a
    duplicate. Returns 409 if the webhook is disabled.
    """
    return subscriptions.redeliver(delivery, actor=actor)
