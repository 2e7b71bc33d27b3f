"""Decides whether evidence, a ledger or a release is PROVEN, only CONSISTENT, or NOT PROVEN."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from byteor.engine.signing.bundle import SIGNING_KEYS
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import Refused

from . import ledger_export, release_files
from .evidence import Evidence, Proof, prove
from .files import RELEASE, read_export, read_file, read_lines
from .ledger_export import LedgerProof, Start
from .release_files import ReleaseProof
from .trust import Doubt, EvidenceCode, Trust, Unproven, VerificationOutcome

EXIT_CODES = {VerificationOutcome.PROVEN: 0, VerificationOutcome.NOT_PROVEN: 1, VerificationOutcome.CONSISTENT: 3}


class UsageError(Exception):
    """The options exclude each other, an option is missing, or a file cannot be read."""


def verify(options: argparse.Namespace, subcommand: str | None) -> tuple[list[str], int]:
    """Check the files named in ``options``: the evidence of a deployment, or what the subcommand verifies.

    Returns the lines to print and the exit code. Raises UsageError.
    """
    try:
        proof, trust = _PROVERS[subcommand](options)
    except (Unproven, Refused) as error:
        outcome = VerificationOutcome.NOT_PROVEN
        refusal = {"outcome": outcome, "code": error.code, "detail": error.detail}
        lines = [json.dumps(refusal) if options.json else f"NOT PROVEN  {error.code}: {error.detail}"]
        return lines, EXIT_CODES[outcome]
    except OSError as error:
        raise UsageError(str(error)) from error
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


def _headline(doubts: Sequence[Doubt]) -> str:
    if not doubts:
        return "PROVEN"
    return f"CONSISTENT  but not proven: {' Also, '.join(doubt.detail for doubt in doubts)}"


def _prove_evidence(options: argparse.Namespace) -> tuple[Proof, Trust]:
    single_files = (options.bundle, options.envelope)
    if options.path is not None:
        others = (options.credential, options.approval, options.test_result, options.gate, options.wave_approvals)
        if any((*single_files, *others)):
            raise UsageError("name either an export or individual files, not both")
        files = read_export(options.path)
        evidence = Evidence.from_export(files)
        keys, source = files.get(SIGNING_KEYS), f"the export's {SIGNING_KEYS}"
    else:
        if not all((*single_files, options.keys)):
            raise UsageError("name an export, or at least --bundle, --envelope and --keys")
        evidence = Evidence(
            bundle=read_file(options.bundle),
            envelope=read_file(options.envelope),
            credential=options.credential and read_file(options.credential),
            approval_record=options.approval and read_file(options.approval),
            test_result=options.test_result and read_file(options.test_result),
            gate=options.gate and read_file(options.gate),
            wave_approvals=options.wave_approvals and read_file(options.wave_approvals),
        )
        keys, source = None, ""
    trust = _read_trust(options, keys, source)
    proof = prove(evidence, trust, environment_id=options.environment, require_approval=options.require_approval)
    return proof, trust


def _prove_ledger(options: argparse.Namespace) -> tuple[LedgerProof, Trust]:
    trust = _read_trust_in(options.exports[0].parent, options)
    with ExitStack() as stack:
        exports = (
            read_lines(stack.enter_context(path.open(encoding="utf-8", newline="\n"))) for path in options.exports
        )
        return ledger_export.prove(exports, trust, after=options.after and Start(*options.after)), trust


def _prove_release(options: argparse.Namespace) -> tuple[ReleaseProof, Trust]:
    path = options.path / RELEASE if options.path.is_dir() else options.path
    trust = _read_trust_in(path.parent, options)
    return release_files.prove(path, trust), trust


_PROVERS: Mapping[str | None, Callable[[argparse.Namespace], tuple[Proof | LedgerProof | ReleaseProof, Trust]]] = {
    None: _prove_evidence,
    "ledger": _prove_ledger,
    "release": _prove_release,
}


def _read_trust_in(folder: Path, options: argparse.Namespace) -> Trust:
    """Return the trusted keys: those of --keys, or of the key set in the folder. Raises UsageError without either."""
    exported_keys = folder / SIGNING_KEYS
    if options.keys is None and not exported_keys.exists():
        raise UsageError(f"name the key set with --keys, or put it into the folder of the files as {SIGNING_KEYS}")
    return _read_trust(options, None if options.keys else read_file(exported_keys), str(exported_keys))


def _read_trust(options: argparse.Namespace, exported_keys: bytes | None, source: str) -> Trust:
    """Return the trusted keys: those of --keys, or otherwise the exported ones. --trust limits both to the named ids.

    Raises Unproven or Refused.
    """
    if options.keys is not None:
        keyset = KeySet.parse(read_file(options.keys))
        return Trust(keyset=keyset, source=str(options.keys), is_named=True, kids=options.trust)
    if exported_keys is None:
        raise Unproven(EvidenceCode.FILE_MISSING, f"{SIGNING_KEYS} is missing: name the key set with --keys")
    return Trust(keyset=KeySet.parse(exported_keys), source=source, is_named=False, kids=options.trust)
