"""``byteor-verify``: check exported files, and say whether they are proven, consistent or not proven."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from byteor_cloud.engine.delivery import tar
from byteor_cloud.engine.delivery.bundle import SIGNING_KEYS
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import Refused

from . import ledger
from .evidence import NAMES, Evidence, Proof, prove
from .ledger import LedgerProof
from .trust import EvidenceCode, Outcome, Trust, Unproven

EXIT_CODES = {Outcome.PROVEN: 0, Outcome.NOT_PROVEN: 1, Outcome.CONSISTENT: 3}  # 2: misused
_OUTCOMES = """\
the first word of the answer, and the exit code:
  PROVEN      0  everything holds, and the keys that signed are ones that you named by --trust or --keys
  CONSISTENT  3  the files agree with each other, but rest on keys that came with them: anybody can make such files
  NOT PROVEN  1  something is wrong, and it is said what
  (stderr)    2  the command line asks for something that can't be done
"""


class UsageError(Exception):
    """The command line asks for something that can't be done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files and print the outcome first. Returns the exit code: 0 proven, 1 not proven, 2 misused,
    3 consistent.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    of_ledger = arguments[:1] == ["ledger"]
    options = _ledger_parser().parse_args(arguments[1:]) if of_ledger else _parser().parse_args(arguments)
    try:
        proof, trust = _ledger(options) if of_ledger else _evidence(options)
    except (Unproven, Refused) as error:
        outcome = Outcome.NOT_PROVEN
        if options.json:
            said = [json.dumps({"outcome": outcome, "code": error.code, "detail": error.detail})]
        else:
            said = [f"NOT PROVEN  {error.code}: {error.detail}"]
    except (UsageError, OSError) as error:
        _say(f"byteor-verify: {error}", file=sys.stderr)
        return 2
    else:
        outcome = trust.outcome
        if options.json:
            said = [json.dumps({"outcome": outcome, **proof.document(), "keys": trust.document()})]
        else:
            said = [_headline(outcome)]
            said += [f"  {name:<13} {text}" for name, text in (*proof.lines(), ("keys", str(trust)))]
    for line in said:
        _say(line)
    return EXIT_CODES[outcome]


def _headline(outcome: Outcome) -> str:
    if outcome is Outcome.PROVEN:
        return "PROVEN"
    return "CONSISTENT  but not proven: it rests on the files' own keys. Name keys that you trust by --trust or --keys."


def _say(line: str, *, file: TextIO | None = None) -> None:
    """Print one line. What the files hold can neither move the cursor nor look like a line of this program."""
    print("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line), file=file)


def _evidence(options: argparse.Namespace) -> tuple[Proof, Trust]:
    apart = (options.bundle, options.envelope)
    if options.path is not None:
        if any((*apart, options.credential)):
            raise UsageError("either an export or its files one by one")
        files = _files(options.path)
        evidence = Evidence.of(files)
        keys, source = files.get(SIGNING_KEYS), f"the export's {SIGNING_KEYS}"
    else:
        if not all((*apart, options.keys)):
            raise UsageError("name an export, or at least --bundle, --envelope and --keys")
        evidence = Evidence(
            bundle=options.bundle.read_bytes(),
            envelope=options.envelope.read_bytes(),
            credential=options.credential and options.credential.read_bytes(),
        )
        keys, source = None, ""
    trust = _trust(options, keys, source)
    proof = prove(evidence, trust, environment_id=options.environment, require_approval=options.require_approval)
    return proof, trust


def _files(path: Path) -> dict[str, bytes]:
    """The files of an export: the tar as it was downloaded, or the folder that it was unpacked to."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in NAMES if (path / name).exists()}
    try:
        return tar.unpack(path.read_bytes())
    except ValueError as error:
        raise Unproven(EvidenceCode.MALFORMED, f"{path.name}: {error}") from error


def _ledger(options: argparse.Namespace) -> tuple[LedgerProof, Trust]:
    beside = options.exports[0].parent / SIGNING_KEYS
    if options.keys is None and not beside.exists():
        raise UsageError(f"name the key set by --keys, or put it beside the export as {SIGNING_KEYS}")
    trust = _trust(options, None if options.keys else beside.read_bytes(), str(beside))
    with ExitStack() as opened:
        exports: Iterator[Iterator[str]] = (
            _text(opened.enter_context(path.open(encoding="utf-8", newline="\n"))) for path in options.exports
        )
        return ledger.prove(exports, trust), trust


def _text(lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"not UTF-8: {error}") from error


def _trust(options: argparse.Namespace, beside: bytes | None, source: str) -> Trust:
    """Return the key set that --keys names, else the one that came with the files. Raises Unproven without any."""
    if options.keys is not None:
        keyset = KeySet.parse(options.keys.read_bytes())
        return Trust(keyset=keyset, source=str(options.keys), is_named=True, kids=options.trust)
    if beside is None:
        raise Unproven(EvidenceCode.FILE_MISSING, f"{SIGNING_KEYS} is missing, and there are no --keys")
    return Trust(keyset=KeySet.parse(beside), source=source, is_named=False, kids=options.trust)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-verify",
        description="Prove offline who approved exactly these bytes for which environment.",
        epilog=f"{_OUTCOMES}\nbyteor-verify ledger --help: the same for an exported audit ledger.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", type=Path, nargs="?", metavar="EXPORT", help="a deployment's evidence: the tar, or the folder of it"
    )
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="instead of an export: the deploy bundle's tar")
    parser.add_argument("--envelope", type=Path, metavar="FILE", help="its signed envelope")
    parser.add_argument("--credential", type=Path, metavar="FILE", help="the approval credential, if there is one")
    parser.add_argument("--environment", metavar="ID", help="refuse what is for another environment")
    parser.add_argument(
        "--require-approval",
        action="store_true",
        help="refuse a bundle that nobody approved as it is: where no approval was needed, or after a break-glass",
    )
    return _with_keys(parser)


def _ledger_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-verify ledger",
        description="Prove offline that an exported audit ledger, an organization's or the installation's own, is "
        "whole and as it was sealed.",
        epilog=_OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "exports",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="exports, each going on from the one before; the first may be the last line of an earlier one",
    )
    return _with_keys(parser)


def _with_keys(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KID",
        help="take no signature but of this key, whose id you keep elsewhere; may be repeated. The key set may then "
        "come with the files, since a key's id is its own fingerprint",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="take signatures of this key set, which you keep elsewhere, and of no other. Without it the "
        f"{SIGNING_KEYS} that came with the files is read, which proves nothing by itself",
    )
    parser.add_argument(
        "--json", action="store_true", help='one line of JSON: {"outcome": "proven" | "consistent" | "not_proven", ...}'
    )
    return parser
