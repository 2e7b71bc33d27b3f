"""The functions that run this app's jobs."""

from __future__ import annotations

from apps.fleet import services
from apps.fleet.jobs import FORGET_CREDENTIALS
from byteor_cloud.jobs import runs_periodically


@runs_periodically(FORGET_CREDENTIALS)
def forget_credentials() -> None:
    """Delete enrollment tokens and agent keys that expired or were revoked long ago."""
    services.forget_credentials()
