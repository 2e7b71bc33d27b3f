"""Sign-in of machines without a browser (RFC 8628). People allow or deny it in the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.parsers import BaseParser, FormParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.tenancy.api import limits
from apps.tenancy.api.authentication import client_ip
from apps.tenancy.api.serializers.credentials import UserSerializer
from apps.tenancy.services import device_sign_ins
from byteor_cloud.api.declared import DeclaringView
from byteor_cloud.api.fields import NameField
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parsers import parse_json
from byteor_cloud.api.view_sets import IgnoreAccept
from byteor_cloud.errors import DeviceSignInError

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_LONGEST_CODE: Final = 200


class _JSONParser(BaseParser):
    """A parser of strict JSON in a body that ``bodies.receive_form`` has already read."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the parsed value. Raises InvalidInput."""
        return parse_json(stream.read())


class DeviceSignInSerializer(serializers.Serializer[Any]):
    """The description of a machine. Other parameters, such as the RFC's ``client_id``, are ignored."""

    client_name = NameField(max_length=100, required=False)
    descriptions = {"client_name": "The name of the machine. The person who allows the sign-in sees it."}


class DeviceSignInCodesSerializer(serializers.Serializer[Any]):
    device_code = serializers.CharField()
    user_code = serializers.CharField()
    verification_uri = serializers.CharField()
    verification_uri_complete = serializers.CharField()
    expires_in = serializers.IntegerField()
    interval = serializers.IntegerField()
    descriptions = {
        "device_code": "The code with which the machine requests its token. Keep it secret.",
        "user_code": "The code that the person enters, such as `BCDF-GHJK`.",
        "verification_uri": "The URL of the page on which the person enters the code.",
        "verification_uri_complete": "The URL of the page with the code prefilled.",
        "expires_in": "The number of seconds for which the codes are valid.",
        "interval": "The number of seconds to wait between two requests for the token.",
    }


class DeviceGrantSerializer(serializers.Serializer[Any]):
    """The request for the token. Other parameters, such as the RFC's ``client_id``, are ignored."""

    grant_type = serializers.CharField(max_length=_LONGEST_CODE)
    device_code = serializers.CharField(max_length=_LONGEST_CODE)
    descriptions = {
        "grant_type": f"Always `{GRANT_TYPE}`.",
        "device_code": "The device code of the sign-in.",
    }


class DeviceTokenSerializer(serializers.Serializer[Any]):
    access_token = serializers.CharField()
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField()
    expires_at = serializers.DateTimeField()
    user = UserSerializer()
    descriptions = {
        "access_token": "A user token for the API.",
        "token_type": "Always `Bearer`.",
        "expires_in": "The number of seconds for which the token is valid.",
        "expires_at": "When the token expires.",
        "user": "The person who allowed the sign-in.",
    }


@method_decorator(never_cache, name="dispatch")
class _DeviceView(DeclaringView, APIView):
    """Base of the views for machines that have no credential yet. They accept JSON, and forms as in the RFCs."""

    http_method_names = ["post"]
    authentication_classes = []
    permission_classes = []
    parser_classes = [_JSONParser, FormParser]
    content_negotiation_class = IgnoreAccept
    tag = Tag.AUTHENTICATION


class StartView(_DeviceView):
    @Operation(
        "startDeviceSignIn",
        None,
        body=DeviceSignInSerializer,
        responses={200: DeviceSignInCodesSerializer},
        example={"client_name": "build-7"},
    )
    def post(self, request: Request) -> Response:
        """Start signing in on a machine without a browser.

        Returns a code to show to the person, and the URL of the page on which the person enters the code and allows or
        denies the sign-in. Meanwhile, request the token every `interval` seconds (RFC 8628). The body of this request,
        and of the request for the token, can also be a form, as in the RFC.
        """
        address = client_ip(request)
        limits.count_sign_in("device", address)
        sent = DeviceSignInSerializer(data=request.data)
        sent.is_valid(raise_exception=True)
        started = device_sign_ins.start(client_name=sent.validated_data.get("client_name", ""), ip=address)
        page = (settings.CONFIG.public_base_url or request.build_absolute_uri("/")).rstrip("/") + reverse(
            "admin:device"
        )
        body = {
            "device_code": started.device_code,
            "user_code": started.user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?{urlencode({'user_code': started.user_code})}",
            "expires_in": int(device_sign_ins.LIFETIME.total_seconds()),
            "interval": int(device_sign_ins.INTERVAL.total_seconds()),
        }
        return Response(DeviceSignInCodesSerializer(body).data)


class TokenView(_DeviceView):
    @Operation(
        "finishDeviceSignIn",
        None,
        body=DeviceGrantSerializer,
        responses={
            200: DeviceTokenSerializer,
            400: OpenApiResponse(
                description="No token was issued. `error` is a code of RFC 8628 or RFC 6749: "
                "`authorization_pending`, `slow_down`, `access_denied`, `expired_token`, `invalid_grant`, "
                "`invalid_request` or `unsupported_grant_type`. It is missing if the body cannot be parsed."
            ),
        },
        example={"grant_type": GRANT_TYPE, "device_code": "bor_dev_…"},
    )
    def post(self, request: Request) -> Response:
        """Finish signing in on a machine without a browser.

        Returns the user token once, after a person has allowed the sign-in. While the decision is pending, returns 400
        with the error `authorization_pending`, or `slow_down` if requests come too often. After `slow_down`, wait 5
        seconds longer between requests.
        """
        sent = DeviceGrantSerializer(data=request.data)
        if not sent.is_valid():
            raise DeviceSignInError("invalid_request", "Send grant_type and device_code.")
        if sent.validated_data["grant_type"] != GRANT_TYPE:
            raise DeviceSignInError("unsupported_grant_type", f"The grant_type must be {GRANT_TYPE}.")
        request_id, ip = request.META["HTTP_X_REQUEST_ID"], client_ip(request)
        issued = device_sign_ins.collect(sent.validated_data["device_code"], request_id=request_id, ip=ip)
        assert issued.token.expires_at is not None  # noqa: S101  for mypy: user tokens expire
        body = {
            "access_token": issued.secret,
            "token_type": "Bearer",
            "expires_in": int((issued.token.expires_at - timezone.now()).total_seconds()),
            "expires_at": issued.token.expires_at,
            "user": issued.user,
        }
        return Response(DeviceTokenSerializer(body).data)
