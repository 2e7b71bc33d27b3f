"""The title of each kind of job, which says what the job does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apps.artifacts import jobs as artifacts
from apps.fleet import jobs as fleet
from apps.notifications import jobs as notifications
from apps.releases import jobs as releases
from apps.tenancy import jobs as tenancy

TITLES: Final[Mapping[str, str]] = {
    artifacts.IngestArtifact.name: "Check an uploaded artifact",
    artifacts.RunReplay.name: "Run a replay",
    artifacts.StepBisect.name: "Continue a bisect",
    artifacts.EXPIRE_CAPTURES.name: "Expire requested captures",
    artifacts.CHECK_WHAT_RUNS.name: "Find current deployments to test",
    artifacts.RETENTION.name: "Delete old artifacts, regressions and agents",
    fleet.WelcomeAgent.name: "Offer an agent its deployment",
    fleet.WelcomeAgents.name: "Offer agents their deployments",
    fleet.AgentLeft.name: "Continue rollouts after an agent is drained or decommissioned",
    fleet.DELETE_OLD_CREDENTIALS.name: "Delete old agent keys and enrollment tokens",
    fleet.DELETE_OLD_HISTORY.name: "Delete old agent history and metrics",
    fleet.SETTLE_FACTS.name: "Update agent counts",
    fleet.WRITE_SERIES.name: "Record agent and environment metrics",
    notifications.HandleEvents.name: "Notify people about events",
    notifications.SendMails.name: "Send e-mails",
    notifications.SendChat.name: "Send chat messages",
    notifications.WAKE.name: "Find messages to send",
    notifications.SWEEP.name: "Find events to notify people about",
    notifications.DELETE_OLD.name: "Delete old notifications",
    releases.BuildBundle.name: "Build a deployment",
    releases.StepRollout.name: "Continue a rollout or rollback",
    releases.OfferAfterHold.name: "Make offers to late joiners after held offers are resumed",
    releases.UndoBreakGlass.name: "Undo a break-glass deployment",
    releases.ReplayDecided.name: "Apply the outcome of an approval to its replays",
    releases.RunRegression.name: "Run a regression",
    releases.CheckCurrent.name: "Test the current deployment",
    releases.DELETE_OLD_DETAILS.name: "Delete details of old deployments",
    releases.RENEW_TESTS.name: "Renew outdated regressions",
    releases.SWEEP.name: "Continue deployments, and expire overdue approvals",
    releases.SUM_PROGRESS.name: "Sum up rollout progress",
    tenancy.PurgeProject.name: "Delete the data of a project",
    tenancy.PurgeEnvironment.name: "Delete the data of an environment",
    tenancy.DeliverWebhooks.name: "Send webhook deliveries",
    tenancy.WAKE_WEBHOOKS.name: "Find webhook deliveries that are due",
    tenancy.SEAL_AUDIT.name: "Seal audit events",
    tenancy.SEAL_REST.name: "Seal remaining audit events",
    tenancy.NOTE_KEYS.name: "Update the status of signing keys",
    tenancy.CLOSE_MINUTE.name: "Record denials and delete old request data",
    tenancy.COUNT_USE.name: "Count usage",
    tenancy.DELETE_OLD_SIGN_INS.name: "Delete old sign-ins",
    tenancy.DELETE_OLD_CREDENTIALS.name: "Delete old credentials",
    tenancy.DELETE_OLD_DELIVERIES.name: "Delete old webhook deliveries",
    tenancy.DELETE_OLD_HOSTS.name: "Delete old hosts",
    tenancy.DELETE_OLD_JOBS.name: "Delete old jobs",
}
