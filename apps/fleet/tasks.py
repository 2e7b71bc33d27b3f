"""The functions that run this app's jobs."""

from __future__ import annotations

from apps.fleet import facts, history, services
from apps.fleet.jobs import CONDENSE_FACTS, FORGET_CREDENTIALS, FORGET_HISTORY
from byteor_cloud.jobs import runs_periodically


@runs_periodically(FORGET_CREDENTIALS)
def forget_credentials() -> None:
    """Delete enrollment tokens and agent keys that expired or were revoked long ago."""
    services.forget_credentials()


@runs_periodically(FORGET_HISTORY)
def forget_history() -> None:
    """Delete intervals that ended long ago."""
    history.forget_history()


@runs_periodically(CONDENSE_FACTS)
def condense() -> None:
    """Replace the changes of label counts by their sums, and drop repeated changes of an offer."""
    facts.condense()
