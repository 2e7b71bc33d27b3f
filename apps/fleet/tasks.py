"""The functions that run this app's jobs."""

from __future__ import annotations

from apps.fleet import facts, history, services
from apps.fleet.jobs import FORGET_CREDENTIALS, FORGET_HISTORY, SUM_LABEL_COUNTS
from byteor_cloud.jobs import runs_periodically


@runs_periodically(FORGET_CREDENTIALS)
def forget_credentials() -> None:
    """Delete enrollment tokens and agent keys that expired or were revoked long ago."""
    services.forget_credentials()


@runs_periodically(FORGET_HISTORY)
def forget_history() -> None:
    """Delete intervals that ended long ago."""
    history.forget_history()


@runs_periodically(SUM_LABEL_COUNTS)
def sum_label_counts() -> None:
    """Replace the changes of label counts by their sums."""
    facts.sum_label_counts()
