"""The entry point of ``byteor``: its commands, which are imported on use, and its exit codes."""

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

# The commands by section of the help: the module that defines each, and its summary.
SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Account commands": {
        "login": ("signing_in", "Sign in to a server."),
        "logout": ("signing_in", "Sign out, and revoke the token."),
        "context": ("signing_in", "Manage contexts: server, organization, project, environment."),
    },
    "Authoring commands": {
        "drafts": ("drafts", "Create, preview and promote drafts."),
        "versions": ("drafts", "List, show, compare and copy versions."),
        "bundles": ("bundles", "Create, list and copy config bundles."),
    },
    "Release commands": {
        "deploy": ("deploying", "Deploy a config bundle, and follow the rollout."),
        "deployments": ("deploying", "List, show and follow deployments."),
        "approvals": ("deciding", "List and show approvals."),
        "approve": ("deciding", "Approve a deployment, a wave or a replay."),
        "deny": ("deciding", "Deny a deployment, a wave or a replay."),
        "next-wave": ("steering", "Start the next wave of a rollout."),
        "pause": ("steering", "Pause a rollout."),
        "resume": ("steering", "Resume a paused rollout."),
        "retry": ("steering", "Retry the failed agents of a deployment."),
        "abort": ("steering", "Abort a rollout."),
        "rollback": ("steering", "Roll back a deployment."),
    },
    "Operations commands": {
        "agents": ("agents", "List, explain and manage agents."),
        "held-offers": ("held_offers", "Show and resume offers that are held after a restore."),
        "artifacts": ("artifacts", "Download, replay, trace and bisect incidents."),
        "fixtures": ("fixtures", "Manage fixtures, the regression tests of pipelines."),
        "regress": ("fixtures", "Test a draft, version or config bundle against fixtures."),
        "audit": ("audit", "List, follow and export audit events."),
        "usage": ("audit", "Show quotas and usage."),
    },
    "Programs": {
        "agent": ("other_programs", "Run the reference agent (byteor-agent)."),
        "verify": ("other_programs", "Verify evidence, ledgers and releases offline (byteor-verify)."),
        "replay": ("other_programs", "Replay an incident bundle offline."),
    },
    "Other commands": {
        "api": ("raw", "Send a request to the API."),
        "completion": ("completing", "Print the completion script for a shell."),
    },
}
COMMANDS: Final = {name: found for section in SECTIONS.values() for name, found in section.items()}


class _Lazy(click.Group):
    """The group of all commands. It imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"byteor.command.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), about) for name, (_, about) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the commands and options that begin with the text, without importing the commands."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  only while the shell completes

        found = [(name, about) for name, (_, about) in COMMANDS.items() if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=about) for name, about in found), *options]

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

    To sign in, run `byteor login URL`. In scripts, set BYTEOR_URL and BYTEOR_TOKEN instead.

    \b
    Exit codes (agent, verify and replay have their own):
      0  done
      1  refused or failed, or differences were found
      2  invalid usage
      3  the rollout failed, was aborted or rolled back
      4  not signed in
      8  pending: waiting for approval, or still in progress after --timeout
      130  interrupted by Ctrl-C
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command or complete a command line, and return the exit code. Known errors print no traceback."""
    try:
        _prepare_streams()
        if instruction := os.environ.get("_BYTEOR_COMPLETE"):
            from byteor.command.completing import complete  # noqa: PLC0415  only while the shell completes

            return complete(cli, instruction)
        return _flushed(_run(argv))
    except KeyboardInterrupt:
        return _interrupted()


def _prepare_streams() -> None:
    """Replace closed streams, read stdin as UTF-8, and escape characters that cannot be encoded for the output."""
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
        return _fail(f"Some text is not UTF-8 or cannot be used in this locale. Try LC_ALL=C.UTF-8. ({error})", FAILED)
    except Exception as error:
        from httpx2 import HTTPError, InvalidURL  # noqa: PLC0415  imported for an error only

        from byteor.client.errors import ByteOrError, Unauthorized  # noqa: PLC0415  imported for an error only

        if not isinstance(error, (ByteOrError, HTTPError, InvalidURL)):
            raise
        if isinstance(error, Unauthorized):
            return _fail(f"{error} Sign in with `byteor login URL`.", SIGNED_OUT)
        return _fail(str(error), FAILED)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int) -> int:
    _complain(f"byteor: {plain(' '.join(message.split()))}")
    return code


def _interrupted() -> int:
    _complain("Interrupted.")
    return 130


def _complain(line: str) -> None:
    """Print a line to stderr. If stderr cannot be written, only the exit code reports the error."""
    try:
        click.echo(line, err=True)
    except OSError:
        _discard(sys.stderr)


def _flushed(code: int) -> int:
    """Flush stdout, so that the interpreter does not fail at exit. Return ``code``, or 1 if stdout fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _cannot_write(error)
    else:
        return code


def _cannot_write(error: OSError) -> int:
    _discard(sys.stdout)
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe
        return FAILED
    return _fail(f"The output cannot be written: {error.strerror or error}.", FAILED)


def _discard(stream: Any) -> None:
    """Discard buffered output, which the interpreter would try to write at exit."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as null:
        os.dup2(null.fileno(), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
