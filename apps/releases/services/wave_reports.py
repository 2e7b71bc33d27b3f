"""Reports about the earlier waves of a deployment, for the people who approve the next wave."""

from __future__ import annotations

from collections import Counter

from django.db.models import Sum

from apps.releases.models import AgentFailure, Approval, Deployment
from apps.releases.services import failures
from byteor.engine.machines import OfferAction
from byteor.engine.wave_hold import FailureCount, WaveReport

MAX_CAUSES = 10  # the maximum number of causes in a report, without the sum of the rarer ones


def read_report(deployment: Deployment, wave: int) -> WaveReport:
    """Return what the counted agents of the waves before ``wave`` did.

    Decommissioned agents are included, so that the report does not change when agents that have finished leave.
    """
    progress: Counter[str] = Counter()
    counts = deployment.progress_counts.filter(counted=True, wave__lt=wave).order_by()
    for word, number in counts.values_list("progress").annotate(n=Sum("count")):
        progress[word] += number
    failed = AgentFailure.objects.filter(
        deployment=deployment, action=OfferAction.ACTIVATE, part__counted=True, part__wave__lt=wave
    )
    return WaveReport(
        deployment_id=str(deployment.pk),
        bundle_hash=deployment.bundle_hash or "",
        wave=wave,
        progress=progress,
        failures=tuple(
            FailureCount(each.reason, each.detail, each.count) for each in failures.group(failed, MAX_CAUSES)
        ),
    )


def is_up_to_date(approval: Approval, deployment: Deployment) -> bool:
    """Return whether the earlier waves have done nothing since the report of a wave's approval.

    Returns True for an approval that is not of a wave.
    """
    report = approval.wave_report
    return report is None or read_report(deployment, report.wave).digest == report.digest
