"""``byteor-verify``: read the files, say what they prove and whose keys that rests on."""

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
from .trust import EvidenceCode, Trust, Unproven


class UsageError(Exception):
    """The command line asks for something that can't be done."""


def main(argv: Sequence[str] | None = None) -> int:
    """Verify: 0 it is proven, 1 it is not, with the first reason, 2 misused."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    of_ledger = arguments[:1] == ["ledger"]
    options = _ledger_parser().parse_args(arguments[1:]) if of_ledger else _parser().parse_args(arguments)
    try:
        proof, trust = _ledger(options) if of_ledger else _evidence(options)
    except (Unproven, Refused) as error:
        if options.json:
            _say(json.dumps({"proven": False, "code": error.code, "detail": error.detail}))
        else:
            _say(f"NOT PROVEN  {error.code}: {error.detail}")
        return 1
    except (UsageError, OSError) as error:
        _say(f"byteor-verify: {error}", file=sys.stderr)
        return 2
    if options.json:
        trusted = {"source": trust.source, "came_with_the_evidence": trust.beside, "only": sorted(trust.kids)}
        _say(json.dumps({"proven": True, **proof.document(), "keys_trusted": trusted}))
    else:
        _say("PROVEN")
        for name, text in (*proof.lines(), ("keys trusted", str(trust))):
            _say(f"  {name:<13} {text}")
    return 0


def _say(line: str, *, file: TextIO | None = None) -> None:
    """Print one line: what files say can neither move the cursor nor look like a line of ours."""
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
    return prove(evidence, trust, environment_id=options.environment), trust


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
    if options.keys is not None:
        return Trust(KeySet.parse(options.keys.read_bytes()), str(options.keys), beside=False, kids=options.trust)
    if beside is None:
        raise Unproven(EvidenceCode.FILE_MISSING, f"{SIGNING_KEYS} is missing, and there are no --keys")
    return Trust(KeySet.parse(beside), source, beside=True, kids=options.trust)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-verify",
        description="Prove offline who approved exactly these bytes for which environment.",
        epilog="byteor-verify ledger --help: the same for an exported audit ledger.",
    )
    parser.add_argument(
        "path", type=Path, nargs="?", metavar="EXPORT", help="a deployment's evidence: the tar, or the folder of it"
    )
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="instead of an export: the deploy bundle's tar")
    parser.add_argument("--envelope", type=Path, metavar="FILE", help="its signed envelope")
    parser.add_argument("--credential", type=Path, metavar="FILE", help="the approval credential, if there is one")
    parser.add_argument("--environment", metavar="ID", help="refuse what is for another environment")
    return _with_keys(parser)


def _ledger_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="byteor-verify ledger",
        description="Prove offline that an exported audit ledger is whole and as it was sealed.",
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
        "--keys",
        type=Path,
        metavar="FILE",
        help=f"the organization's key set from where you trust it; default: {SIGNING_KEYS} beside the rest",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KID",
        help="take no signature but of this key; may be repeated. The key set may then come from anywhere: "
        "a key's id is its own fingerprint",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser
