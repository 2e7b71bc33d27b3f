"""``byteor agent``, ``byteor verify`` and ``byteor replay``, which do not use the API with a user token.

They parse their own arguments, so they accept the same ones as ``byteor-agent`` and ``byteor-verify``.
"""

from __future__ import annotations

import click


class _Program(click.Command):
    """A command that receives its arguments unparsed, including ``--help`` and ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Store the arguments without parsing them."""
        ctx.params["arguments"] = tuple(args)
        return []


@click.command(cls=_Program, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.Path())  # the type is for completion
def agent(arguments: tuple[str, ...]) -> int:
    """Run the reference agent, the same program as byteor-agent."""
    from byteor.agent.cli import main  # noqa: PLC0415  only this command needs the agent

    return main(arguments, program="byteor agent")


@click.command(cls=_Program, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.Path())
def verify(arguments: tuple[str, ...]) -> int:
    """Verify evidence, exported ledgers and releases offline, the same program as byteor-verify."""
    from byteor.verify.cli import main  # noqa: PLC0415  only this command needs the verifier

    return main(arguments, program="byteor verify")


@click.command(cls=_Program, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.Path())
def replay(arguments: tuple[str, ...]) -> int:
    """Replay an incident bundle offline, the same as `byteor-agent replay`."""
    from byteor.agent.cli import main  # noqa: PLC0415  only this command needs the agent

    return main(["replay", *arguments], program="byteor")
