"""Signing keys."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.api.fields import ModelSerializer, StrictSerializer, TextField
from apps.tenancy.models import (
    SigningKey,
    enum_choices,
)
from byteor_cloud.engine.delivery.keys import KeyStatus


class SigningKeySerializer(ModelSerializer):
    """A signing key. Its private half is never returned."""

    status = serializers.ChoiceField(enum_choices(KeyStatus), source="current_status", read_only=True)

    descriptions = {
        "kid": "The key's id: its RFC 7638 thumbprint.",
        "status": "`next` is published and does not sign yet, `active` signs, `retiring` only verifies, `retired` "
        "verifies "
        "what was signed before.",
        "not_before": "When it begins to sign.",
        "signs_until": "When it stops signing. Null if no time is set.",
        "not_after": "When it is retired. Null if no time is set.",
        "created_at": "When it was published.",
    }

    class Meta:
        model = SigningKey
        fields = ["id", "kid", "status", "not_before", "signs_until", "not_after", "created_at"]


class RotateSigningKeySerializer(StrictSerializer):
    """The times of a rotation of the signing key."""

    activate_in_s = serializers.IntegerField(required=False, min_value=0, max_value=30 * 86400)
    retire_in_s = serializers.IntegerField(required=False, min_value=60, max_value=366 * 86400)
    descriptions = {
        "activate_in_s": "Seconds until the new key signs. Default: until every agent has had time to fetch it. 0 is "
        "at once, for "
        "an emergency.",
        "retire_in_s": "Seconds that the previous key continues to verify from then on. Default: one week.",
    }


class RetireSigningKeySerializer(StrictSerializer):
    reason = TextField(max_length=2000)


class JwkSerializer(serializers.Serializer[Any]):
    kid = serializers.CharField()
    kty = serializers.ChoiceField(["OKP"])
    crv = serializers.ChoiceField(["Ed25519"])
    x = serializers.CharField()
    alg = serializers.ChoiceField(["EdDSA"])
    use = serializers.ChoiceField(["sig"])
    status = serializers.ChoiceField(enum_choices(KeyStatus))
    not_before = serializers.DateTimeField()
    not_after = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "kid": "The key's id: its RFC 7638 thumbprint.",
        "kty": "The key type.",
        "crv": "The curve.",
        "x": "The public key in base64url.",
        "alg": "The signature algorithm.",
        "use": "What the key is for.",
        "status": "`next`, `active`, `retiring` or `retired`.",
        "not_before": "When it begins to sign.",
        "not_after": "After this time nothing that it signed is valid. Null if no time is set.",
    }


class KeySetSerializer(serializers.Serializer[Any]):
    """The organization's published signing keys."""

    active_kid = serializers.CharField()
    keys = JwkSerializer(many=True)
    descriptions = {
        "active_kid": "The id of the key that signs now.",
        "keys": "All published keys.",
    }
