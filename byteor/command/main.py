"""The entry of ``byteor``: its groups of commands, which are imported when used, and its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import click

from byteor import __version__
from byteor.command.exits import DONE, FAILED, SIGNED_OUT, USAGE, Refusal

# The commands: the module that defines them, and the line in the list of commands.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "login": ("signing_in", "Sign in to a server."),
    "logout": ("signing_in", "Revoke the token of the current context, and forget it."),
    "context": ("signing_in", "List, choose and change contexts: server, organization, project, environment."),
    "drafts": ("drafts", "Create, check and promote the plans of pipelines."),
    "versions": ("drafts", "List and compare the versions of pipelines."),
    "bundles": ("bundles", "Create config bundles, or copy them between environments."),
    "deploy": ("deploying", "Deploy a config bundle, and wait for the rollout."),
    "deployments": ("deploying", "List deployments and show one."),
    "approve": ("deciding", "Approve a deployment, a wave or a replay."),
    "deny": ("deciding", "Deny a deployment, a wave or a replay."),
    "next-wave": ("steering", "Start the next wave of a rollout."),
    "pause": ("steering", "Pause a rollout."),
    "resume": ("steering", "Continue a paused rollout."),
    "retry": ("steering", "Retry the failed agents of a rollout."),
    "abort": ("steering", "Stop a rollout."),
    "rollback": ("steering", "Return the agents to what they ran before."),
    "agents": ("agents", "List, explain and manage agents."),
    "artifacts": ("artifacts", "Fetch, replay, trace and bisect incidents."),
    "fixtures": ("fixtures", "List and manage the regression tests of pipelines."),
    "regress": ("fixtures", "Test a draft, a version or a config bundle against fixtures."),
    "audit": ("audit", "Read, follow and export audit events."),
    "usage": ("audit", "Show what an organization uses."),
    "completion": ("completing", "Print the completion script of a shell."),
    "api": ("raw", "Send any request to the API."),
    "agent": ("other_programs", "The reference agent; the same as byteor-agent."),
    "verify": ("other_programs", "Verify evidence and ledgers offline; the same as byteor-verify."),
    "replay": ("other_programs", "Replay an incident bundle offline."),
}


class _Lazy(click.Group):
    """The group of all commands. It imports only the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"byteor.command.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            from difflib import get_close_matches  # noqa: PLC0415  only for an unknown command

            close = get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"No such command: {args[0]}." + (f" Did you mean {close[0]}?" if close else ""))
        return super().resolve_command(ctx, args)


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="byteor", message="%(prog)s %(version)s")
def cli() -> None:
    """Author, release and replay pipelines with ByteOr Cloud.

    Begin with `byteor login URL`. In scripts, set BYTEOR_URL and BYTEOR_TOKEN instead.

    \b
    Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the rollout failed, was aborted or rolled back;
    4 not signed in; 8 pending (an approval, or --timeout has passed).
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code. Errors are one line on stderr."""
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="byteor", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "byteor"
        return _fail(f"{error.format_message()} See `{path} --help`.", USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), FAILED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except Refusal as error:
        return _fail(str(error), error.code)
    except Exception as error:
        from byteor.client.errors import ByteOrError, Unauthorized  # noqa: PLC0415  imported for an error only

        if not isinstance(error, ByteOrError):
            raise
        if isinstance(error, Unauthorized):
            return _fail(f"{error} Sign in with `byteor login URL`.", SIGNED_OUT)
        return _fail(str(error), FAILED)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int) -> int:
    click.echo(f"byteor: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
