"""``byteor-verify``: checks exported files, and prints whether they are proven, only consistent, or not proven."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from byteor_cloud.engine.delivery import tar
from byteor_cloud.engine.delivery.bundle import SIGNING_KEYS
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import Refused

from . import ledger_export
from .evidence import NAMES, Evidence, Proof, prove
from .ledger_export import LedgerProof
from .trust import EvidenceCode, Trust, Unproven, VerificationOutcome

EXIT_CODES = {VerificationOutcome.PROVEN: 0, VerificationOutcome.NOT_PROVEN: 1, VerificationOutcome.CONSISTENT: 3}
EXIT_USAGE = 2
_HYPHENATED_KID = re.compile(r"-[\w-]{42}", re.ASCII)  # an id is a SHA-256 in base64url: 43 characters
_OUTCOMES = """\
outcome (the start of the output) and exit code:
  PROVEN      0  everything is valid and signed by keys that you named with --trust or --keys
  CONSISTENT  3  everything is valid, but signed by keys that came with the files: anybody can make such files
  NOT PROVEN  1  something is wrong; the output says what
  (stderr)    2  the command line is wrong, or a file cannot be read
"""


class _UsageError(Exception):
    """The options on the command line do not go together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files named on the command line, and print the outcome. Returns the exit code."""
    arguments = _with_joined_keys(sys.argv[1:] if argv is None else argv)
    is_ledger = arguments[:1] == ["ledger"]
    options = _ledger_parser().parse_args(arguments[1:]) if is_ledger else _parser().parse_args(arguments)
    try:
        proof, trust = _prove_ledger(options) if is_ledger else _prove_evidence(options)
    except (Unproven, Refused) as error:
        outcome = VerificationOutcome.NOT_PROVEN
        if options.json:
            lines = [json.dumps({"outcome": outcome, "code": error.code, "detail": error.detail})]
        else:
            lines = [f"NOT PROVEN  {error.code}: {error.detail}"]
    except (_UsageError, OSError) as error:
        _print_line(f"byteor-verify: {error}", file=sys.stderr)
        return EXIT_USAGE
    else:
        outcome = trust.outcome
        if options.json:
            lines = [json.dumps({"outcome": outcome, **proof.document(), "keys": trust.document()})]
        else:
            lines = [_headline(outcome)]
            lines += [f"  {name:<13} {text}" for name, text in (*proof.lines(), ("keys", str(trust)))]
    for line in lines:
        _print_line(line)
    return EXIT_CODES[outcome]


def _with_joined_keys(arguments: Sequence[str]) -> list[str]:
    """Write ``--trust KID`` as ``--trust=KID`` if the id begins with a hyphen, as that of one key in 64 does.

    argparse would take such an id for an option.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined[-1:] == ["--trust"] and _HYPHENATED_KID.fullmatch(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _headline(outcome: VerificationOutcome) -> str:
    if outcome is VerificationOutcome.PROVEN:
        return "PROVEN"
    return "CONSISTENT  but not proven: the keys came with the files. Name keys that you trust with --trust or --keys."


def _print_line(line: str, *, file: TextIO | None = None) -> None:
    """Print one line, with unprintable characters escaped.

    Otherwise the content of a file could move the cursor, or imitate another line of the output.
    """
    print("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line), file=file)


def _prove_evidence(options: argparse.Namespace) -> tuple[Proof, Trust]:
    single_files = (options.bundle, options.envelope)
    if options.path is not None:
        if any((*single_files, options.credential)):
            raise _UsageError("name either an export or its single files, not both")
        files = _read_export(options.path)
        evidence = Evidence.from_export(files)
        keys, source = files.get(SIGNING_KEYS), f"the export's {SIGNING_KEYS}"
    else:
        if not all((*single_files, options.keys)):
            raise _UsageError("name an export, or at least --bundle, --envelope and --keys")
        evidence = Evidence(
            bundle=options.bundle.read_bytes(),
            envelope=options.envelope.read_bytes(),
            credential=options.credential and options.credential.read_bytes(),
        )
        keys, source = None, ""
    trust = _read_trust(options, keys, source)
    proof = prove(evidence, trust, environment_id=options.environment, require_approval=options.require_approval)
    return proof, trust


def _read_export(path: Path) -> dict[str, bytes]:
    """Read the files of an export: from the downloaded tar, or from the folder into which it was unpacked."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in NAMES if (path / name).exists()}
    try:
        return tar.unpack(path.read_bytes())
    except ValueError as error:
        raise Unproven(EvidenceCode.MALFORMED, f"{path.name}: {error}") from error


def _prove_ledger(options: argparse.Namespace) -> tuple[LedgerProof, Trust]:
    exported_keys = options.exports[0].parent / SIGNING_KEYS
    if options.keys is None and not exported_keys.exists():
        raise _UsageError(f"name the key set with --keys, or put it into the folder of the export as {SIGNING_KEYS}")
    trust = _read_trust(options, None if options.keys else exported_keys.read_bytes(), str(exported_keys))
    with ExitStack() as stack:
        exports: Iterator[Iterator[str]] = (
            _read_lines(stack.enter_context(path.open(encoding="utf-8", newline="\n"))) for path in options.exports
        )
        return ledger_export.prove(exports, trust), trust


def _read_lines(file: Iterator[str]) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"not UTF-8: {error}") from error


def _read_trust(options: argparse.Namespace, exported_keys: bytes | None, source: str) -> Trust:
    """Read the key set that --keys names, or else the key set that came with the files. Raises Unproven without one."""
    if options.keys is not None:
        keyset = KeySet.parse(options.keys.read_bytes())
        return Trust(keyset=keyset, source=str(options.keys), is_named=True, kids=options.trust)
    if exported_keys is None:
        raise Unproven(EvidenceCode.FILE_MISSING, f"{SIGNING_KEYS} is missing, and --keys is not given")
    return Trust(keyset=KeySet.parse(exported_keys), source=source, is_named=False, kids=options.trust)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-verify",
        description="Verify the evidence of a deployment offline: who approved these bytes for which environment.",
        epilog=f"{_OUTCOMES}\nFor an exported audit ledger, see byteor-verify ledger --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        metavar="EXPORT",
        help="the evidence of a deployment: the tar or the unpacked folder",
    )
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="the deploy bundle, instead of an export")
    parser.add_argument("--envelope", type=Path, metavar="FILE", help="the signed envelope of the bundle")
    parser.add_argument("--credential", type=Path, metavar="FILE", help="the approval credential, if there is one")
    parser.add_argument("--environment", metavar="ID", help="refuse a bundle that is for another environment")
    parser.add_argument(
        "--require-approval",
        action="store_true",
        help="refuse a bundle that contains no approval, because none was needed or the deployment used break-glass",
    )
    return _with_keys(parser)


def _ledger_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-verify ledger",
        description="Verify offline that an exported audit ledger, of an organization or of the installation, is "
        "complete and unaltered.",
        epilog=_OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "exports",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="exports in their order, each of which continues the one before. To verify only the events after an "
        "earlier export, pass a file with the last line of that export first",
    )
    return _with_keys(parser)


def _with_keys(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KID",
        help="accept only signatures of the key with this id, which you keep elsewhere; may be repeated. The key set "
        "may then come with the files, because the id of a key is its fingerprint",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="accept only signatures of the keys in this file, which you keep elsewhere. Without it, the "
        f"{SIGNING_KEYS} that came with the files is used, which proves nothing by itself",
    )
    parser.add_argument(
        "--json", action="store_true", help='one line of JSON: {"outcome": "proven" | "consistent" | "not_proven", ...}'
    )
    return parser
