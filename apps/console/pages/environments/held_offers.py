"""The banner and the act of an environment whose offers have been held since a restore."""

from __future__ import annotations

from apps.console.frame.acts import Act
from apps.console.pages.deployments.phrases import agent_count
from apps.releases.api import commands
from apps.releases.services.restored import HeldOffers

RESUME_OFFERS = Act.of(
    commands.resume_offers,
    label="Resume offers",
    done="Offers in {} resumed",
    explain="The agents get the offers of the backup again. If an agent was moved to a newer release after the backup, "
    "it returns to the release of the backup. To avoid that, first deploy what the agent should run: a new deployment "
    "replaces the held offers of its agents.",
    comment="optional",
    icon="play_arrow",
)


def describe_held(held: HeldOffers) -> list[tuple[str, str, list[str]]]:
    """Return a list with the banner of held offers, if there are any: a tuple of its tone, title and lines."""
    if held.backup_at is None:
        return []
    return [
        (
            "warn",
            f"Restored from a backup of {held.backup_at:%Y-%m-%d %H:%M} UTC",
            [
                f"Offers to {agent_count(held.agents)} are held. An agent with a held offer keeps running what it runs "
                "until the offers are resumed or the agent gets a new offer.",
                "Drifted agents do not run what the backup offers them. Check them before you resume the offers.",
            ],
        )
    ]
