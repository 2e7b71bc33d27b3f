"""The worker's jobs of this app."""

from __future__ import annotations

from apps.fleet import services
from apps.fleet.jobs import FORGET_CREDENTIALS
from byteor_cloud.jobs import runs_periodically


@runs_periodically(FORGET_CREDENTIALS)
def forget_credentials() -> None:
    """Enrollment tokens and agent keys that ended long ago."""
    services.forget_credentials()
