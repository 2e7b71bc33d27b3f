"""The worker's jobs of this app."""

from __future__ import annotations

from apps.fleet import services
from byteor_cloud.jobs import periodic


@periodic("fleet.forget_credentials", cron="13 * * * *")
def forget_credentials() -> None:
    """Enrollment tokens and agent keys that ended long ago."""
    services.forget_credentials()
