"""Signing keys."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.models import SigningKey, enum_choices
from byteor.engine.signing.keys import KeyStatus
from byteor_cloud.api.fields import ModelSerializer, StrictSerializer, TextField


class SigningKeySerializer(ModelSerializer):
    """A signing key. Its private key is never returned."""

    status = serializers.ChoiceField(enum_choices(KeyStatus), source="current_status", read_only=True)

    descriptions = {
        "kid": "The key's id: its RFC 7638 thumbprint.",
        "status": (
            "`next`: published, but not signing yet. `active`: signs. `retiring`: only verifies. `retired`: only "
            "verifies signatures that contain the time of signing, if that time is before `not_after`."
        ),
        "not_before": "When the key starts to sign, unless it is withdrawn first.",
        "signs_until": "When the key stops signing. Null if the key has no successor.",
        "not_after": "When the key is retired. Null if no time is set.",
        "created_at": "When the key was published.",
    }

    class Meta:
        model = SigningKey
        fields = ["id", "kid", "status", "not_before", "signs_until", "not_after", "created_at"]


class RotateSigningKeySerializer(StrictSerializer):
    """The times of a rotation of the signing key."""

    activate_in_s = serializers.IntegerField(required=False, min_value=0, max_value=30 * 86400)
    retire_in_s = serializers.IntegerField(required=False, min_value=60, max_value=366 * 86400)
    descriptions = {
        "activate_in_s": (
            "The number of seconds until the new key signs. Defaults to the time that online agents need to fetch the "
            "key. In an emergency, use 0 to sign with the new key immediately."
        ),
        "retire_in_s": (
            "The number of seconds after which the previous key is retired, counted from the time when the new key "
            "starts to sign. Defaults to one week."
        ),
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
        "crv": "The elliptic curve.",
        "x": "The public key in base64url.",
        "alg": "The signature algorithm.",
        "use": "The purpose of the key: signatures.",
        "status": "The key's status: `next`, `active`, `retiring` or `retired`.",
        "not_before": "When the key starts to sign, unless it is withdrawn first.",
        "not_after": "The key verifies only signatures that were made before this time. Null if no time is set.",
    }


class KeySetSerializer(serializers.Serializer[Any]):
    """The organization's published signing keys."""

    active_kid = serializers.CharField()
    keys = JwkSerializer(many=True)
    descriptions = {
        "active_kid": "The id of the key that currently signs.",
        "keys": "All published keys.",
    }
