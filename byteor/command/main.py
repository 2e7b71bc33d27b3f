"""The entry of ``byteor``: its groups of commands, which are imported when used, and its exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import click

from byteor import __version__
from byteor.command.exits import DONE, FAILED, SIGNED_OUT, USAGE, Refusal
from byteor.command.output import plain

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
    "approvals": ("deciding", "List approvals and show what they cover."),
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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415  only while the shell completes

        options = click.Command.shell_complete(self, ctx, incomplete)  # a group's own method would import all commands
        names = [CompletionItem(name, help=each[1]) for name, each in COMMANDS.items() if name.startswith(incomplete)]
        return names + options

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
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
    Exit codes:
      0  done
      1  refused or failed
      2  wrong usage
      3  the rollout failed, was aborted or rolled back
      4  not signed in
      8  pending: an approval is missing, or --timeout has passed
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code. Errors are one line on stderr."""
    try:
        _prepare_streams()
        if instruction := os.environ.get("_BYTEOR_COMPLETE"):
            from byteor.command.completing import complete  # noqa: PLC0415  only while the shell completes

            return complete(cli, instruction)
        return _flushed(_run(argv))
    except KeyboardInterrupt:
        return _interrupted()


def _prepare_streams() -> None:
    """Replace closed streams, and let text that the terminal cannot show be written with escapes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  stays open as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            if name == "stdin":
                stream.reconfigure(encoding="utf-8")  # JSON and tokens are UTF-8, whatever the locale is
            else:
                stream.reconfigure(errors="backslashreplace")


def _run(argv: Sequence[str] | None) -> int:
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="byteor", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "byteor"
        return _fail(f"{error.format_message()} See `{path} --help`.", USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), FAILED)
    except click.Abort:
        return _interrupted()
    except Refusal as error:
        return _fail(str(error), error.code)
    except SystemExit as stop:  # from argparse in another program, or from click if a pipe was closed
        code = DONE if stop.code is None else stop.code
    except OSError as error:
        if error.filename is None:
            return _cannot_write(error)
        return _fail(f"{error.filename}: {error.strerror}.", FAILED)
    except UnicodeError as error:
        return _fail(f"Some text cannot be used in this locale. Try LC_ALL=C.UTF-8. ({error})", FAILED)
    except Exception as error:
        from httpx2 import HTTPError, InvalidURL  # noqa: PLC0415  imported for an error only

        from byteor.client.errors import ByteOrError, Unauthorized  # noqa: PLC0415  imported for an error only

        if not isinstance(error, (ByteOrError, HTTPError, InvalidURL)):
            raise
        return _fail(str(error), SIGNED_OUT if isinstance(error, Unauthorized) else FAILED)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int) -> int:
    _complain(f"byteor: {plain(' '.join(message.split()))}")
    return code


def _interrupted() -> int:
    _complain("Interrupted.")
    return 130


def _complain(line: str) -> None:
    """Print a line to stderr. If that cannot be written either, only the exit code can tell."""
    try:
        click.echo(line, err=True)
    except OSError:
        _discard(sys.stderr)


def _flushed(code: int) -> int:
    """Write what is buffered, so that the interpreter does not fail at it. Return the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _cannot_write(error)
    else:
        return code


def _cannot_write(error: OSError) -> int:
    _discard(sys.stdout)
    if isinstance(error, BrokenPipeError):  # the reader has read enough
        return FAILED
    return _fail(f"The output cannot be written: {error.strerror or error}.", FAILED)


def _discard(stream: Any) -> None:
    """Discard what is buffered, which the interpreter would try to write at exit."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as null:
        os.dup2(null.fileno(), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
