"""The command ``byteor-verify``: its arguments and its exit codes."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .output import escape, print_lines

EXIT_USAGE = 2
EXIT_OUTPUT = 4
_HYPHENATED_KID = re.compile(r"-[\w-]{42}", re.ASCII)  # a key id is a SHA-256 in base64url: 43 characters
_START = re.compile(r"([0-9]{1,18})(?::(sha256:[0-9a-f]{64}))?", re.ASCII)
_OUTCOMES = """\
outcome (at the start of the output) and exit code:
  PROVEN      0  all checks passed, you named the keys with --trust or --keys, and no approval record is missing
  CONSISTENT  3  all checks passed, but this is no proof: the keys came with the files, so anybody could have created
                 both, or the signed approval record is missing; the output states the reason
  NOT PROVEN  1  a check failed; the output states the reason
  (stderr)    2  the command line is wrong, or a file cannot be read
  (stderr)    4  the output cannot be written; a closed pipe is not an error and does not change the exit code
"""


def main(argv: Sequence[str] | None = None, *, program: str = "byteor-verify") -> int:
    """Check the files named on the command line, and print the outcome. Returns the exit code.

    ``program`` is the name in the help and in errors.
    """
    arguments = _with_joined_keys(sys.argv[1:] if argv is None else argv)
    subcommand = arguments.pop(0) if arguments and arguments[0] in _SUBCOMMANDS else None
    make_parser = _parser if subcommand is None else _SUBCOMMANDS[subcommand]
    try:
        try:
            options = make_parser(program).parse_args(arguments)
        except SystemExit:  # argparse has printed its help or an error: flush the output
            print_lines(())
            raise
        from .verification import UsageError, verify  # noqa: PLC0415  imported late, so that --help is fast

        try:
            lines, code = verify(options, subcommand)
        except UsageError as error:
            return _fail(program, str(error), EXIT_USAGE)
        print_lines(lines)
    except OSError as error:
        return _fail(program, f"the output cannot be written: {error}", EXIT_OUTPUT)
    return code


def _fail(program: str, message: str, code: int) -> int:
    if sys.stderr is not None:  # if it is None, print would write to stdout
        with suppress(OSError):
            print(f"{program}: {escape(message)}", file=sys.stderr)
    return code


def _with_joined_keys(arguments: Sequence[str]) -> list[str]:
    """Join ``--trust KID`` to ``--trust=KID`` if the key id begins with a hyphen, as one in 64 does.

    argparse would treat such an id as an option.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined[-1:] == ["--trust"] and _HYPHENATED_KID.fullmatch(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Verify the evidence of a deployment offline: who approved these bytes for which environment, how "
        "they were tested, and who approved which wave.",
        epilog=f"{_OUTCOMES}\nFor an exported ledger, see {program} ledger --help. For the files of a release, see "
        f"{program} release --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        metavar="EXPORT",
        help="the evidence of a deployment: the tar or the unpacked folder",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="FILE",
        help="the deploy bundle, instead of an export; requires --envelope and --keys",
    )
    parser.add_argument("--envelope", type=Path, metavar="FILE", help="the signed envelope of the bundle")
    parser.add_argument("--credential", type=Path, metavar="FILE", help="the approval credential, if there is one")
    parser.add_argument("--approval", type=Path, metavar="FILE", help="the signed approval record")
    parser.add_argument("--test-result", type=Path, metavar="FILE", help="the signed result of the tests")
    parser.add_argument("--gate", type=Path, metavar="FILE", help="the signed statement about the replay gate")
    parser.add_argument("--wave-approvals", type=Path, metavar="FILE", help="the signed decisions on waves")
    parser.add_argument("--environment", metavar="ID", help="reject a bundle for any other environment")
    parser.add_argument(
        "--require-approval",
        action="store_true",
        help="reject a bundle that contains no approval: none was needed, or the deployment used break-glass",
    )
    return _with_keys(parser)


def _ledger_parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{program} ledger",
        description="Verify offline that the exported events of an organization's or the installation's ledger are "
        "complete and unaltered up to the last checkpoint.",
        epilog=_OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "exports",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the exports in order; each must continue the previous one",
    )
    parser.add_argument(
        "--after",
        type=_parse_start,
        metavar="SEQ[:HASH]",
        help="the first export begins after this sequence number instead of with the first event. With the hash of an "
        "earlier checkpoint (SEQ:sha256:...), the export is also proven to continue from that checkpoint",
    )
    return _with_keys(parser)


def _release_parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{program} release",
        description="Verify offline that downloaded files belong to a release and are unaltered. The signed list "
        "contains the version, the commit, and each file's size and hash. Listed files that are missing are not "
        "checked, and other files in the folder are not covered; the output mentions both.",
        epilog=_OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path",
        type=Path,
        metavar="FILE",
        help="the signed list, release.json, in the folder with the files of the release; or that folder",
    )
    return _with_keys(parser)


def _parse_start(text: str) -> tuple[int, str | None]:
    match = _START.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("must be a sequence number, optionally with a hash (SEQ:sha256:...)")
    return int(match[1]), match[2]


def _with_keys(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KID",
        help="accept only signatures by the key with this id, which you obtained separately; can be repeated. The key "
        "set may then come with the files, because a key's id is its fingerprint",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="accept only signatures by the keys in this file, which you obtained separately. Without it, the "
        "signing_keys.json that came with the files is used, which proves nothing on its own",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='print a line of JSON: {"outcome": "proven" | "consistent" | "not_proven", ...}',
    )
    return parser


_SUBCOMMANDS: Mapping[str, Callable[[str], argparse.ArgumentParser]] = {
    "ledger": _ledger_parser,
    "release": _release_parser,
}
