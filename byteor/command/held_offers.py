"""``byteor held-offers``: show and resume the offers that are held after a restore from a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from byteor.command.output import confirm, json_option, show
from byteor.command.rollout_news import agents_of
from byteor.command.session import Session, with_session

if TYPE_CHECKING:
    from byteor.client import models as m


@click.group("held-offers")
def held_offers() -> None:
    """Show and resume offers that are held after a restore from a backup."""


@held_offers.command("show")
@json_option("HeldOffers")
@with_session
def show_held(session: Session, as_json: str | None) -> None:
    """Show how many offers of the environment are held, and when the backup was made.

    \b
    Examples:
      byteor held-offers show --env Production
      byteor held-offers show --json agents
    """
    found = session.environment.get_held_offers()
    show(found, as_json, _describe(found))


def _describe(held: m.HeldOffers) -> str:
    if held.backup_at is None:
        return "No offers are held."
    keeps = "It keeps" if held.agents == 1 else "They keep"
    return (
        f"Restored from a backup of {held.backup_at:%Y-%m-%d %H:%M} UTC: the offers to {agents_of(held.agents)} are "
        f"held. {keeps} running what {'it runs' if held.agents == 1 else 'they run'}.\n"
        "To list agents that do not run what the backup offers them: byteor agents list --drifted"
    )


@held_offers.command()
@click.option("--reason", help="The reason, for the audit trail.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option("HeldOffers")
@with_session
def resume(session: Session, reason: str | None, yes: bool, as_json: str | None) -> None:
    """Resume the held offers of the environment, so that its agents get them.

    If an agent was moved to a newer release after the backup, it returns to the release of the backup. To avoid that,
    first deploy what it should run. Paused deployments stay paused. Break-glass deployments whose approval was denied,
    expired or revoked are rolled back if possible.

    \b
    Examples:
      byteor held-offers resume --env Production --reason "All agents were checked"
      byteor held-offers resume --yes
    """
    held = session.environment.get_held_offers()
    if held.agents:
        confirm(
            f"Resume the offers to {agents_of(held.agents)}? Agents that run a newer release return to the release of "
            "the backup.",
            yes=yes,
        )
    changed = session.environment.resume_offers(reason=reason)
    show(changed, as_json, f"Resumed the offers to {agents_of(held.agents)}.")
