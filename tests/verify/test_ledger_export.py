"""``byteor-verify ledger`` proves that an exported ledger is complete and unaltered, or reports the first fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from byteor.engine.canonical import canonical, sha256
from byteor.engine.hash_chain import GENESIS
from tests.engine.signing.conftest import World
from tests.verify.conftest import Verifier
from tests.verify.exports import KID
from tests.verify.ledgers import BEGAN, LINES, ORG, OTHER, chained, checkpoint, event

TRUSTED = ("--trust", KID)


class Ledger:
    """Runs ``byteor-verify ledger`` on exports in a folder that also contains the key set."""

    def __init__(self, verify: Verifier, folder: Path) -> None:
        self.verify, self.folder = verify, folder
        (folder / "signing_keys.json").write_bytes(canonical(World().keyset.document()))

    def file(self, name: str, lines: list[str]) -> str:
        (self.folder / name).write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
        return str(self.folder / name)

    def __call__(self, *parts: list[str], options: tuple[str, ...] = ()) -> tuple[int, str]:
        files = [self.file(f"part-{number}.ndjson", lines) for number, lines in enumerate(parts)]
        code = self.verify.run("ledger", *files, *options)
        return code, self.verify.output


@pytest.fixture
def ledger(verify: Verifier, tmp_path: Path) -> Ledger:
    """Return a callable that runs ``byteor-verify ledger``."""
    return Ledger(verify, tmp_path)


def test_complete_ledger_is_proven(ledger: Ledger, tmp_path: Path) -> None:
    code, output = ledger([*LINES, checkpoint(LINES)], options=TRUSTED)

    last = json.loads(LINES[-1])["hash"]
    assert code == 0
    assert output == (
        "PROVEN\n"
        f"  organization  {ORG}\n"
        "  events        8, from seq 1 to 8\n"
        f"  checkpoint    seq 8 {last}, signed at 2026-10-20T08:00:00Z\n"
        f"  signature     checkpoint of seq 8, key {KID} (trusted): events 1 to 8; the ledger "
        "ended at seq 8 at 2026-10-20T08:00:00Z\n"
        f"  keys          only {KID}, named with --trust\n"
    )


def test_forged_ledger_with_forged_key_set_is_consistent_only_without_named_key(ledger: Ledger, tmp_path: Path) -> None:
    stranger = replace(World(), active=World().stranger)
    (tmp_path / "signing_keys.json").write_bytes(canonical(stranger.keyset.document()))
    forged = [*LINES, checkpoint(LINES, key=World().stranger)]

    code, output = ledger(forged)
    assert (code, output.partition(" ")[0]) == (3, "CONSISTENT")
    assert "PROVEN" not in output
    assert json.loads(ledger(forged, options=("--json",))[1])["outcome"] == "consistent"
    code, output = ledger(forged, options=("--json", *TRUSTED))
    assert (code, json.loads(output)["outcome"], json.loads(output)["code"]) == (1, "not_proven", "keys.untrusted")


def test_every_checkpoint_must_be_signed_by_key_of_trust_option(ledger: Ledger) -> None:
    first, second = [*LINES[:5], checkpoint(LINES[:5], key=World().retiring)], [*LINES[5:], checkpoint(LINES)]

    for parts, after in (((first, second), ()), ((first[-1:], second), ("--after", "5"))):
        assert ledger(*parts, options=after)[0] == 3
        assert ledger(*parts, options=(*after, *TRUSTED))[1].startswith("NOT PROVEN  keys.untrusted: ")


def test_installation_chain_has_no_organization(ledger: Ledger) -> None:
    own = chained(*(event(number, organization_id=None) for number in range(1, 4)))

    code, output = ledger([*own, checkpoint(own, org_id=None)], options=TRUSTED)

    assert (code, output.splitlines()[:2]) == (
        0,
        ["PROVEN", "  organization  none: this is the installation's own chain"],
    )
    result = json.loads(ledger([*own, checkpoint(own, org_id=None)], options=("--json", *TRUSTED))[1])
    assert (result["outcome"], result["events"], result["checkpoint"]["org_id"]) == ("proven", 3, None)
    mixed = chained(event(1, organization_id=None), event(2))
    for lines, org_id, reason in (
        (own, ORG, "checkpoint.organization"),
        (LINES, None, "checkpoint.organization: the checkpoint belongs to the installation"),
        (mixed, None, "ledger.foreign: seq 2"),
        (chained(event(1), event(2, organization_id=None)), ORG, "ledger.foreign: seq 2"),
    ):
        assert ledger([*lines, checkpoint(lines, org_id=org_id)])[1].startswith(f"NOT PROVEN  {reason}")
    relabelled = [text.replace(f'"organization_id":"{ORG}"', '"organization_id":null') for text in LINES]
    assert ledger([*relabelled, checkpoint(LINES, org_id=None)])[1].startswith("NOT PROVEN  ledger.altered: seq 1")


def test_json_output_contains_ledger_proof(ledger: Ledger) -> None:
    code, output = ledger([*LINES, checkpoint(LINES)], options=("--json", "--trust", KID))

    result = json.loads(output)
    assert code == 0
    assert (result["outcome"], result["first_seq"], result["events"], result["checkpoint"]["seq"]) == (
        "proven",
        1,
        8,
        8,
    )
    assert result["keys"]["trusted_kids"] == [KID]


def test_consecutive_exports_are_proven_and_gaps_are_reported(ledger: Ledger) -> None:
    first, second = [*LINES[:5], checkpoint(LINES[:5])], [*LINES[5:], checkpoint(LINES)]

    whole = ledger(first, second, options=TRUSTED)[1]
    assert whole.startswith(f"PROVEN\n  organization  {ORG}\n  events        8, from seq 1 to 8\n")
    assert ledger(first, first[-1:], options=TRUSTED)[0] == 0  # the second export contains no events
    assert ledger(second)[1].startswith("NOT PROVEN  ledger.missing: seq 1, ")
    assert ledger(second, first)[0] == 1
    assert ledger(first, [*LINES[6:], checkpoint(LINES)])[1].startswith("NOT PROVEN  ledger.missing: seq 6, ")


def test_export_that_starts_mid_chain_is_proven_with_after_option(ledger: Ledger) -> None:
    last, ended = json.loads(LINES[4])["hash"], checkpoint(LINES[:5])
    later = [*LINES[5:], checkpoint(LINES)]

    assert "use --after with the sequence number" in ledger(later, options=TRUSTED)[1]
    code, output = ledger(later, options=("--after", "5", *TRUSTED))
    assert code == 0
    assert "  events        3, from seq 6 to 8\n" in output
    assert (
        f"  after         seq 5 {last}, according to the export: compare the hash with your earlier checkpoint\n"
        in output
    )
    assert "(trusted): events 6 to 8; " in output
    code, output = ledger(later, options=("--after", f"5:{last}", *TRUSTED))
    assert (code, f"  after         seq 5 {last}, which you named\n" in output) == (0, True)
    result = json.loads(ledger(later, options=("--after", f"5:{last}", "--json", *TRUSTED))[1])
    assert (result["first_seq"], result["after"]) == (6, {"seq": 5, "hash": last, "named": True})
    assert ledger([ended], later, options=("--after", "5", *TRUSTED))[0] == 0
    nothing = ledger([ended], options=("--after", "5", *TRUSTED))
    assert (nothing[0], "  events        none\n" in nothing[1]) == (0, True)
    assert "(trusted): the ledger ended at seq 5 at " in nothing[1]


@pytest.mark.parametrize("start", ["", "x", "-1", "5:", "5:sha256:00", f"5:{GENESIS}x", "\u0661", "9" * 19])
def test_exit_code_is_2_for_malformed_after_option(ledger: Ledger, start: str) -> None:
    with pytest.raises(SystemExit) as left:
        ledger([checkpoint([])], options=(f"--after={start}",))
    assert left.value.code == 2


def test_empty_ledger_is_proven_by_checkpoint(ledger: Ledger) -> None:
    code, output = ledger([checkpoint([])], options=TRUSTED)

    assert code == 0
    assert "  events        none\n" in output


def _end(lines: list[str]) -> list[str]:
    return [*lines, checkpoint(LINES)]


ALTERED: list[tuple[str, Callable[[], list[str]]]] = [
    ("ledger.altered: seq 3", lambda: _end([x.replace("ada@", "eve@") if i == 2 else x for i, x in enumerate(LINES)])),
    ("ledger.missing: seq 3", lambda: _end(LINES[:2] + LINES[3:])),
    ("ledger.missing: seq 1", lambda: _end(LINES[1:])),
    ("ledger.missing: seq 3", lambda: _end([*LINES[:2], LINES[3], LINES[2], *LINES[4:]])),
    ("ledger.missing: seq 3", lambda: _end([*LINES[:3], LINES[2], *LINES[3:]])),
    ("ledger.broken: seq 4", lambda: _end([*LINES[:2], chained(event(1), event(2), event(99))[2], *LINES[3:]])),
    ("ledger.cut_off: ", lambda: _end(LINES[:-1])),
    ("ledger.rewritten: seq 8", lambda: _end(chained(*(event(n, actor_display="x") for n in range(1, 9))))),
    ("ledger.unsealed: ", lambda: _end([*LINES, *chained(*(event(n) for n in range(1, 10)))[8:]])),
    ("ledger.foreign: seq 2", lambda: _end(chained(event(1), event(2, organization_id=OTHER)))),
    ("ledger.backdated: seq 2", lambda: _end(chained(event(1), event(2, timestamp=BEGAN - timedelta(hours=2))))),
    ("ledger.malformed: line 3", lambda: _end([*LINES[:2], "{}", *LINES[3:]])),
    ("ledger.malformed: line 9", lambda: [*LINES, ""]),
    ("ledger.malformed: line 3",
     lambda: _end([*LINES[:2], LINES[2].replace('["approved"', "[" * 9000 + "]" * 9000 + ',["approved"'), *LINES[3:]])),
    ("ledger.malformed: line 10", lambda: [*_end(LINES), LINES[0]]),
    ("checkpoint.missing", lambda: LINES),
    ("checkpoint.missing", list),
    ("checkpoint.organization", lambda: [*LINES, checkpoint(LINES, org_id=OTHER)]),
    ("checkpoint.unknown_key", lambda: [*LINES, checkpoint(LINES, key=World().stranger)]),
    ("checkpoint.bad_signature", lambda: [*LINES, checkpoint(LINES).replace('"seq":8', '"seq":9')]),
    ("checkpoint.malformed", lambda: [*LINES, '{"checkpoint":{}}']),
]  # fmt: skip


@pytest.mark.parametrize(("code", "make"), ALTERED, ids=[f"{i} {code}" for i, (code, _) in enumerate(ALTERED)])
@pytest.mark.parametrize("options", [(), ("--trust", KID)], ids=["any key", "a named key"])
def test_first_fault_of_altered_ledger_is_reported(
    ledger: Ledger, code: str, make: Callable[[], list[str]], options: tuple[str, ...]
) -> None:
    exit_code, output = ledger(make(), options=options)

    assert exit_code == 1
    assert output.startswith(f"NOT PROVEN  {code}")
    assert output.count("\n") == 1


FIRST, LATER = [*LINES[:5], checkpoint(LINES[:5])], [*LINES[5:], checkpoint(LINES)]
REWRITTEN = chained(*(event(number, actor_display="x") for number in range(1, 9)))
RENUMBERED = chained(*(event(number) for number in range(6, 9)))
GAP = " 1 to 5 are missing. If the export is meant to begin later, use --after with the sequence number"
FORGED: dict[str, tuple[list[list[str]], tuple[str, ...], str]] = {
    "only a checkpoint": ([[checkpoint(LINES)]], (), "ledger.cut_off: the events end at seq 0, but the "),
    "only an older checkpoint": ([FIRST[-1:]], (), "ledger.cut_off: "),
    "only the checkpoint of a later export": ([LATER[-1:]], ("--after", "5"), "ledger.cut_off: the events end at "),
    "a checkpoint before the start": ([FIRST[-1:]], ("--after", "8"), "ledger.unsealed: the events continue to seq 8"),
    "a checkpoint and then its events": ([[checkpoint(LINES), *LINES]], (), "ledger.malformed: line 2 comes after "),
    "an export without its beginning": ([LATER], (), f"ledger.missing: seq 1, event (none):{GAP}"),
    "a checkpoint instead of the beginning": ([FIRST[-1:], LATER], (), "ledger.cut_off: "),
    "a renumbered beginning": ([[*RENUMBERED, checkpoint(LINES)]], (), "ledger.cut_off: the events end at seq 3"),
    "a later start than named": ([[*LINES[6:], checkpoint(LINES)]], ("--after", "5"), "ledger.missing: seq 6, "),
    "an earlier start than named": ([[*LINES[4:], checkpoint(LINES)]], ("--after", "5"), "ledger.missing: seq 5, "),
    "another hash than named": ([LATER], ("--after", f"5:{GENESIS}"), "ledger.broken: seq 6, "),
    "another hash than named, without events": ([FIRST[-1:]], ("--after", f"5:{GENESIS}"), "ledger.rewritten: seq 5: "),
    "another hash than the genesis hash": (
        [[*LINES, checkpoint(LINES)]], ("--after", f"0:{sha256(b'')}"), "ledger.broken: seq 1, "),
    "another history than named": (
        [[*REWRITTEN[5:], checkpoint(REWRITTEN)]], ("--after", f"5:{json.loads(LINES[4])['hash']}"), "ledger.broken: "),
    "another history than the checkpoint's": (
        [FIRST[-1:], [*REWRITTEN[5:], checkpoint(REWRITTEN)]], ("--after", "5"), "ledger.broken: seq 6, "),
    "checkpoints that disagree": ([FIRST, [checkpoint(REWRITTEN[:5])]], (), "ledger.rewritten: seq 5: "),
    "two checkpoints in a file": (
        [[*LINES, checkpoint(LINES), checkpoint(REWRITTEN)]], (), "ledger.malformed: line 10 comes after "),
    "the checkpoint of another organization": (
        [FIRST, [*LINES[5:], checkpoint(LINES, org_id=OTHER)]], (), "checkpoint.organization: "),
    "an exchanged checkpoint": ([[*LINES, checkpoint(REWRITTEN)]], (), "ledger.rewritten: seq 8: "),
    "an older checkpoint at the end": ([[*LINES, FIRST[-1]]], (), "ledger.unsealed: the events continue to seq 8, "),
    "a checkpoint of an empty ledger": ([[*LINES, checkpoint([])]], (), "ledger.unsealed: "),
    "a checkpoint by a retiring key": ([[*LINES, checkpoint(LINES, key=World().retiring)]], (), "keys.untrusted: "),
    "an earlier checkpoint by a stranger": (
        [[checkpoint(LINES[:5], key=World().stranger)], LATER], ("--after", "5"), "checkpoint.unknown_key: "),
    "a comment": ([["# exported by hand", *LINES, checkpoint(LINES)]], (), "ledger.malformed: line 1: "),
    "a line that is too long": ([["x" * (16 * 1024 * 1024 + 1)]], (), "ledger.malformed: a line has 16777216 "),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_incomplete_or_malformed_ledger_is_not_proven(ledger: Ledger, name: str) -> None:
    parts, options, reason = FORGED[name]
    assert ledger(FIRST, LATER, options=TRUSTED)[0] == ledger(LATER, options=("--after", "5", *TRUSTED))[0] == 0

    code, output = ledger(*parts, options=(*options, *TRUSTED))

    assert code == 1
    assert output.startswith(f"NOT PROVEN  {reason}"), output
    assert output.count("\n") == 1


def test_exported_key_that_trust_option_does_not_name_is_not_trusted(ledger: Ledger) -> None:
    retiring = [*LINES, checkpoint(LINES, key=World().retiring)]

    assert ledger(retiring)[0] == 3
    assert ledger(retiring, options=TRUSTED)[1].startswith("NOT PROVEN  keys.untrusted: ")


def test_named_key_file_replaces_exported_key_set(ledger: Ledger, tmp_path: Path) -> None:
    stranger = replace(World(), active=World().stranger)
    (tmp_path / "signing_keys.json").write_bytes(canonical(stranger.keyset.document()))
    ours = tmp_path / "ours.json"
    ours.write_bytes(canonical(World().keyset.document()))
    export = [*LINES, checkpoint(LINES)]

    assert ledger(export)[1].startswith("NOT PROVEN  checkpoint.unknown_key: ")
    assert ledger(export, options=("--keys", str(ours)))[0] == 0


def test_file_that_is_not_utf_8_is_malformed(ledger: Ledger, tmp_path: Path, verify: Verifier) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\n")

    assert verify.run("ledger", str(tmp_path / "x")) == 1
    assert verify.output.startswith("NOT PROVEN  ledger.malformed: ")
