"""Config bundles."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from apps.releases.api import commands as c
from apps.releases.api.serializers.bundles import ConfigBundleSerializer, CreateConfigBundleSerializer
from apps.releases.models import ConfigBundle, KnownBad
from apps.releases.services import bundle_copies, bundles
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import Created, CreateMixin, ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import ID, Operation, Tag
from byteor_cloud.api.parameters import id_parameter, sha256_parameter


class ConfigBundleViewSet(ListModelMixin, CreateMixin, RetrieveMixin, EnvironmentViewSet):
    """Config bundles: versions with their runtime configuration."""

    checked: bundles.NewConfiguration | None = None
    tag = Tag.CONFIG_BUNDLES
    queryset = ConfigBundle.objects.select_related("version", "environment__project")
    serializer_class = ConfigBundleSerializer
    filters = {**BY_NAME, "version_id": id_parameter("version_id"), "config_hash": sha256_parameter("config_hash")}
    operations = {
        "list": Operation(
            "listConfigBundles",
            P.VIEW_ENVIRONMENT,
            "List config bundles",
            "Returns the environment's config bundles, newest first.",
        ),
        "create": Operation(
            "createConfigBundle",
            P.OPERATE_ENVIRONMENT,
            "Create a config bundle",
            "Creates an immutable config bundle from a version and a runtime configuration. The `config_hash` "
            "identifies its content. With `from_config_bundle_id` instead, copies a config bundle of another "
            "environment of the project, with its name, its configuration and its version, so that the `config_hash` "
            "is the same. If this environment has no version of the pipeline with the same spec hash, the version is "
            "copied as well. If this environment already has a config bundle with the same name and `config_hash`, a "
            "copy request returns 200 with that config bundle. If a config bundle of this environment has the name but "
            "another `config_hash`, the request fails with `name_taken`. A copy deploys nothing, and may be known bad "
            "in this environment.",
            body=CreateConfigBundleSerializer,
            responses={201: ConfigBundleSerializer, 200: ConfigBundleSerializer},
            example={"name": "trades-1", "version_id": ID},
        ),
        "retrieve": Operation(
            "getConfigBundle", P.VIEW_ENVIRONMENT, "Get a config bundle", "Returns the config bundle."
        ),
    }
    commands = (c.clear,)

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        bad = KnownBad.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
        annotated: QuerySet[Any] = queryset.annotate(known_bad=Exists(bad))
        return annotated

    def prepare(self, request: Request) -> None:
        """Check the configuration. All other errors in the body are left to ``create``."""
        if self.action == "create":
            with suppress(ValidationError):
                fields = self.validated(request)
                if "from_config_bundle_id" in fields:
                    return
                fields.pop("name")
                self.checked = bundles.check_configuration(fields.pop("version"), **fields, compute=self.compute)

    def perform_create(self, data: dict[str, Any]) -> Created:
        new = {"environment": self.environment, "actor": self.actor, **data}
        if "from_config_bundle_id" in data:
            bundle, is_new = bundle_copies.copy_config_bundle(**new)
        else:
            bundle, is_new = bundles.create_config_bundle(checked=self.checked, **new), True
        # Read the row again, because the response needs the annotation ``known_bad``.
        return Created(self.get_queryset().get(pk=bundle.pk), is_new=is_new)
