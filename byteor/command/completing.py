"""``byteor completion``: the completion scripts of shells, and the completion itself."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, Final

import click
from click.shell_completion import BashComplete, CompletionItem, get_completion_class

VARIABLE: Final = "_BYTEOR_COMPLETE"  # the completion script sets it to its request, such as bash_complete
MOST_S: Final = 3.0  # a person waits, so nothing is completed if the server is slower
_UNSAFE = re.compile(r"[^\w@%+=:,./-]")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    Add one of these lines to the configuration file of your shell:

    \b
      bash  ~/.bashrc                    eval "$(byteor completion bash)"
      zsh   ~/.zshrc, after compinit     eval "$(byteor completion zsh)"
      fish  ~/.config/fish/config.fish   byteor completion fish | source

    The names of drafts, agents and other resources are completed if you are signed in.

    \b
    Examples:
      byteor completion bash
    """
    click.echo(_script_of(click.get_current_context().find_root().command, shell).source(), nl=False)


def complete(cli: click.Command, instruction: str) -> int:
    """Print the completions, and nothing on stderr, because it would appear in the line that is being typed."""
    found = ""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), suppress(BaseException), _time_limit():
        found = _script_of(cli, instruction.partition("_")[0]).complete()
    click.echo(found)
    return 0


def _script_of(cli: click.Command, shell: str) -> Any:
    kind = _Bash if shell == "bash" else get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    return kind(cli, {}, "byteor", VARIABLE)


class _TimeIsUp(BaseException):
    """Raised by the alarm. It is not an Exception, so that no ``except Exception`` catches it and retries."""


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise _TimeIsUp if the block takes more than ``MOST_S`` seconds. Without effect on Windows."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Bash(BashComplete):
    """Completion for Bash.

    Bash inserts text as it is, so this escapes names, which otherwise could be commands. Bash also splits words at
    colons, as in ``quotes:3``, and at equals signs, so this joins the parts.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
    _inserted = 0  # the number of characters of the value before the word that Bash replaces

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete arguments, and the incomplete one."""
        from click.shell_completion import split_arg_string  # noqa: PLC0415  only Bash needs it

        words: list[list[str]] = []
        for word in os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]:
            if words and (_is_break(word) or _is_break(words[-1][-1])):
                words[-1].append(word)
            else:
                words.append([word])
        joined = ["".join(parts) for parts in words[1:]] or [""]
        arguments = [(split_arg_string(each) or [""])[0] for each in joined]
        if ":" in words[-1]:
            value = arguments[-1].partition("=")[2] if arguments[-1].startswith("-") else arguments[-1]
            self._inserted = value.rfind(":") + 1
        return arguments[:-1], arguments[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return a line for the script: the type, and the rest of the value as Bash reads it."""
        return f"{item.type},{_UNSAFE.sub(r'\\\g<0>', str(item.value)[self._inserted :])}"


def _is_break(word: str) -> bool:
    return word != "" and not word.strip(":=")
