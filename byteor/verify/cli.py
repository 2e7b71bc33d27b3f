"""``byteor-verify``: checks exported files, and prints whether they are proven, only consistent, or not proven."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from byteor.engine.signing.bundle import SIGNING_KEYS
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import Refused

from . import ledger_export
from .evidence import Evidence, Proof, prove
from .files import read_export, read_file, read_lines
from .ledger_export import LedgerProof, Start
from .output import escape, print_lines
from .trust import Doubt, EvidenceCode, Trust, Unproven, VerificationOutcome

EXIT_CODES = {VerificationOutcome.PROVEN: 0, VerificationOutcome.NOT_PROVEN: 1, VerificationOutcome.CONSISTENT: 3}
EXIT_USAGE = 2
EXIT_OUTPUT = 4
_HYPHENATED_KID = re.compile(r"-[\w-]{42}", re.ASCII)  # an id is a SHA-256 in base64url: 43 characters
_START = re.compile(r"([0-9]{1,18})(?::(sha256:[0-9a-f]{64}))?", re.ASCII)
_OUTCOMES = """\
outcome (the start of the output) and exit code:
  PROVEN      0  everything is valid and signed by keys that you named with --trust or --keys
  CONSISTENT  3  everything is valid, but not proven: the keys came with the files, so that anybody can have made them,
                 or the signed record of the approval is missing; the output says which
  NOT PROVEN  1  something is wrong; the output says what
  (stderr)    2  the command line is wrong, or a file cannot be read
  (stderr)    4  the outcome cannot be written; a closed pipe is no error and changes no exit code
"""


class _UsageError(Exception):
    """The options on the command line do not go together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files named on the command line, and print the outcome. Returns the exit code."""
    arguments = _with_joined_keys(sys.argv[1:] if argv is None else argv)
    try:
        try:
            lines, code = _verify(arguments)
        except SystemExit:  # argparse has printed its help, or what is wrong with the command line
            print_lines(())
            raise
        print_lines(lines)
    except _UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except OSError as error:
        return _fail(f"the outcome cannot be written: {error}", EXIT_OUTPUT)
    return code


def _verify(arguments: Sequence[str]) -> tuple[list[str], int]:
    """Return the lines to print and the exit code. Raises _UsageError."""
    is_ledger = arguments[:1] == ["ledger"]
    options = _ledger_parser().parse_args(arguments[1:]) if is_ledger else _parser().parse_args(arguments)
    try:
        proof, trust = _prove_ledger(options) if is_ledger else _prove_evidence(options)
    except (Unproven, Refused) as error:
        outcome = VerificationOutcome.NOT_PROVEN
        refusal = {"outcome": outcome, "code": error.code, "detail": error.detail}
        lines = [json.dumps(refusal) if options.json else f"NOT PROVEN  {error.code}: {error.detail}"]
        return lines, EXIT_CODES[outcome]
    except OSError as error:
        raise _UsageError(str(error)) from error
    doubts = (*trust.doubts, *proof.doubts)
    outcome = VerificationOutcome.CONSISTENT if doubts else VerificationOutcome.PROVEN
    if options.json:
        document = {
            "outcome": outcome,
            "doubts": [doubt._asdict() for doubt in doubts],
            **proof.document(),
            "signatures": trust.signature_documents(proof.signatures),
            "keys": trust.document(),
        }
        return [json.dumps(document)], EXIT_CODES[outcome]
    facts = (*proof.lines(), *trust.signature_lines(proof.signatures), ("keys", str(trust)))
    return [_headline(doubts), *(f"  {name:<13} {text}" for name, text in facts)], EXIT_CODES[outcome]


def _fail(message: str, code: int) -> int:
    if sys.stderr is not None:  # print would write to stdout instead
        with suppress(OSError):
            print(f"byteor-verify: {escape(message)}", file=sys.stderr)
    return code


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


def _headline(doubts: Sequence[Doubt]) -> str:
    if not doubts:
        return "PROVEN"
    return f"CONSISTENT  but not proven: {' Also, '.join(doubt.detail for doubt in doubts)}"


def _prove_evidence(options: argparse.Namespace) -> tuple[Proof, Trust]:
    single_files = (options.bundle, options.envelope)
    if options.path is not None:
        if any((*single_files, options.credential, options.approval)):
            raise _UsageError("name either an export or its single files, not both")
        files = read_export(options.path)
        evidence = Evidence.from_export(files)
        keys, source = files.get(SIGNING_KEYS), f"the export's {SIGNING_KEYS}"
    else:
        if not all((*single_files, options.keys)):
            raise _UsageError("name an export, or at least --bundle, --envelope and --keys")
        evidence = Evidence(
            bundle=read_file(options.bundle),
            envelope=read_file(options.envelope),
            credential=options.credential and read_file(options.credential),
            approval_record=options.approval and read_file(options.approval),
        )
        keys, source = None, ""
    trust = _read_trust(options, keys, source)
    proof = prove(evidence, trust, environment_id=options.environment, require_approval=options.require_approval)
    return proof, trust


def _prove_ledger(options: argparse.Namespace) -> tuple[LedgerProof, Trust]:
    exported_keys = options.exports[0].parent / SIGNING_KEYS
    if options.keys is None and not exported_keys.exists():
        raise _UsageError(f"name the key set with --keys, or put it into the folder of the export as {SIGNING_KEYS}")
    trust = _read_trust(options, None if options.keys else read_file(exported_keys), str(exported_keys))
    with ExitStack() as stack:
        exports = (
            read_lines(stack.enter_context(path.open(encoding="utf-8", newline="\n"))) for path in options.exports
        )
        return ledger_export.prove(exports, trust, after=options.after), trust


def _read_trust(options: argparse.Namespace, exported_keys: bytes | None, source: str) -> Trust:
    """Read the key set that --keys names, or else the key set that came with the files. Raises Unproven without one."""
    if options.keys is not None:
        keyset = KeySet.parse(read_file(options.keys))
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
    parser.add_argument("--approval", type=Path, metavar="FILE", help="the signed record of the approval")
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
        help="exports in their order, each of which continues the one before",
    )
    parser.add_argument(
        "--after",
        type=_parse_start,
        metavar="SEQ[:HASH]",
        help="the first export begins after this sequence number, rather than with the first event. With the hash of "
        "the earlier checkpoint (SEQ:sha256:...), it is also proven that the export continues what that covered",
    )
    return _with_keys(parser)


def _parse_start(text: str) -> Start:
    match = _START.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("not a sequence number, nor one with a hash (SEQ:sha256:...)")
    return Start(int(match[1]), match[2])


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
