"""Config bundles, and config hashes that are known bad."""

from __future__ import annotations

from apps.releases.models import ConfigBundle, KnownBad
from apps.releases.services import bundles
from tests.permissions import OPERATE, VIEW
from tests.resources import Act, Call, E, Page, Place, Resource, Table
from tests.resources.versions import version


def bundle(place: Place) -> ConfigBundle:
    return place.world.bundle(place.environment, place.name("bundle"), version=place.get(version))


def barred(place: Place) -> ConfigBundle:
    """Create a config bundle that is known bad."""
    made = place.world.bundle(place.environment, "barred", version=place.get(version), env={"BARRED": "1"})
    bundles.mark_known_bad(place.environment, made.config_hash, reason="it failed", actor=place.world.admin.actor)
    return made


def known_bad(place: Place) -> KnownBad:
    bundles.mark_known_bad(
        place.environment, "sha256:" + "b" * 64, reason=f"{place.world.name} saw it fail",
        actor=place.world.admin.actor,
    )  # fmt: skip
    return KnownBad.objects.latest("id")


_LARGE = frozenset({"stage_config", "adapters", "env", "required_capabilities"})
RESOURCE = Resource(
    calls=(
        Call("listConfigBundles", "GET", E + "/config-bundles", VIEW, null=_LARGE),
        Call(
            "createConfigBundle", "POST", E + "/config-bundles", OPERATE, 201,
            values=lambda place: {"version_id": str(place.get(version).pk)},
        ),
        Call("getConfigBundle", "GET", E + "/config-bundles/{id}", VIEW),
        Call("clearConfigBundle", "POST", E + "/config-bundles/{id}/clear", OPERATE, on=barred),
    ),
    tables=(
        Table(
            "releases.configbundle", VIEW, bundle, "Config bundles",
            acts={
                "clear": Act("clearConfigBundle", {"comment": "because"}),
                "copy": Act("createConfigBundle"),
                "test": Act("requestRegression"),
            },
            pages={"releases_configbundle_deploy": Page("createDeployment", ("GET", "POST"))},
            large=_LARGE, short={"snapshot": "two fields"},
        ),
        Table("releases.knownbad", VIEW, known_bad, "Known bad"),
    ),
    ids={"config-bundles": bundle},
)  # fmt: skip
