"""``byteor agent``, ``byteor verify`` and ``byteor replay``: the programs that need no server's API.

They read their own arguments, so that they are the same as ``byteor-agent`` and ``byteor-verify``.
"""

from __future__ import annotations

import click

_AS_GIVEN = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command(context_settings=_AS_GIVEN, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> int:
    """Run the reference agent, the same program as byteor-agent."""
    from byteor.agent.cli import main  # noqa: PLC0415  only this command needs the agent

    return main(arguments)


@click.command(context_settings=_AS_GIVEN, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def verify(arguments: tuple[str, ...]) -> int:
    """Verify evidence and exported ledgers offline, the same program as byteor-verify."""
    from byteor.verify.cli import main  # noqa: PLC0415  only this command needs the verifier

    return main(arguments)


@click.command(context_settings=_AS_GIVEN, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def replay(arguments: tuple[str, ...]) -> int:
    """Replay an incident bundle offline, the same as `byteor-agent replay`."""
    from byteor.agent.cli import main  # noqa: PLC0415  only this command needs the agent

    return main(["replay", *arguments])
