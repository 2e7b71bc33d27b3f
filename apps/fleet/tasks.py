"""The worker's jobs of this app."""

from __future__ import annotations

from apps.fleet import services
from byteor_cloud.jobs import Lane, periodic


@periodic("fleet.forget_credentials", every_s=3600, at_s=13 * 60, lane=Lane.CLEANING)
def forget_credentials() -> None:
    """Enrollment tokens and agent keys that ended long ago."""
    services.forget_credentials()
