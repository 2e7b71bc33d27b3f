"""``byteor-verify release`` proves the files that a trusted key's signature covers, and reports other files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.canonical import canonical
from byteor.engine.signing import dsse, keys
from tests.engine.signing.conftest import World
from tests.verify.conftest import EXIT_CODES, Verifier
from tests.verify.exports import KID, STRANGER, flipped

COMMIT = "5ab4b6b4" * 5
FILES = {"byteor-0.1.0-py3-none-any.whl": b"agent", "byteor_cloud-0.1.0-py3-none-any.whl": b"service" * 1000}
WHEEL, SERVICE = FILES
TYPE = "urn:byteor:release:v1"


def hashes(**changes: str) -> dict[str, str]:
    """Compute the subject of the signed statement as documented, without the code under test."""
    return {name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in FILES.items()} | changes


def predicate(**changes: object) -> dict[str, object]:
    sizes = {name: len(data) for name, data in FILES.items()}
    made = {"name": "byteor-cloud", "version": "0.1.0", "commit": COMMIT, "committed_at": "2026-10-05T12:00:00Z"}
    return {**made, "sizes": sizes, **changes}


def signed_list(
    subject: dict[str, str] | None = None, *, key: bytes | None = None, type_: str = TYPE, **changes: object
) -> bytes:
    """Return a ``release.json``, signed with our active key by default."""
    return canonical(dsse.sign_statement(type_, subject or hashes(), predicate(**changes), key or World().active))


class Download:
    """A folder with a downloaded release, and a function that verifies it."""

    def __init__(self, verify: Verifier, folder: Path) -> None:
        self.verify, self.folder = verify, folder
        self.list = folder / "release.json"
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
        self.list.write_bytes(signed_list())
        (folder / "signing_keys.json").write_bytes(canonical(World().keyset.document()))

    def __call__(self, *options: str) -> tuple[int, str]:
        code = self.verify.run("release", str(self.list), *(options or ("--trust", KID)))
        return code, self.verify.output

    def result(self, *options: str) -> dict[str, Any]:
        """Run with ``--json`` and return the output, after checking that the exit code matches the outcome.

        Without ``options``, our active key is trusted.
        """
        code, output = self("--json", *(options or ("--trust", KID)))
        result: dict[str, Any] = json.loads(output)
        assert code == EXIT_CODES[result["outcome"]]
        return result


@pytest.fixture
def download(verify: Verifier, tmp_path: Path) -> Download:
    """Return an unaltered download."""
    folder = tmp_path / "download"
    folder.mkdir()
    return Download(verify, folder)


def test_unaltered_files_are_proven(download: Download) -> None:
    digests = hashes()

    assert download() == (
        0,
        "PROVEN\n"
        "  release       byteor-cloud 0.1.0\n"
        f"  commit        {COMMIT}, 2026-10-05T12:00:00Z\n"
        f"  file          {WHEEL}, 5 bytes, {digests[WHEEL]}\n"
        f"  file          {SERVICE}, 7,000 bytes, {digests[SERVICE]}\n"
        f"  signature     release.json, key {KID} (trusted): the version, the commit, and each file's size and hash\n"
        f"  keys          only {KID}, named with --trust\n",
    )
    result = download.result()
    assert result["files"] == [
        {"name": name, "size": len(data), "sha256": digests[name]} for name, data in FILES.items()
    ]
    assert (result["version"], result["commit"]) == ("0.1.0", COMMIT)
    assert (result["outcome"], result["missing"], result["not_covered"]) == ("proven", [], [])
    assert download.verify.run("release", str(download.folder), "--trust", KID) == 0


def test_keys_that_came_with_files_prove_nothing(download: Download, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_bytes((download.folder / "signing_keys.json").read_bytes())

    assert download.result("--json")["outcome"] == "consistent"
    (download.folder / "signing_keys.json").unlink()
    assert download("--json")[0] == 2
    assert download("--keys", str(kept))[0] == 0


def test_list_signed_by_untrusted_key_is_not_proven(download: Download, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_bytes((download.folder / "signing_keys.json").read_bytes())
    forger = World(active=World().stranger)
    download.list.write_bytes(signed_list(key=forger.active))
    (download.folder / "signing_keys.json").write_bytes(canonical(forger.keyset.document()))

    assert download.result("--json")["outcome"] == "consistent"
    assert download.result()["code"] == "keys.untrusted"
    assert download.result("--keys", str(kept))["code"] == "release.unknown_key"
    assert download.result("--trust", STRANGER)["outcome"] == "proven"


def test_altered_file_is_refused(download: Download) -> None:
    (download.folder / SERVICE).write_bytes(flipped(FILES[SERVICE], 6999))
    assert download()[1].startswith(f"NOT PROVEN  release.altered: {SERVICE} has the hash sha256:")

    (download.folder / SERVICE).write_bytes(FILES[SERVICE] + b"\n")
    assert download()[1].startswith(f"NOT PROVEN  release.altered: {SERVICE} has 7,001 bytes, ")


def test_missing_and_additional_files_are_named(download: Download) -> None:
    (download.folder / SERVICE).rename(download.folder / "byteor_cloud-0.1.1-py3-none-any.whl")

    code, output = download()

    assert code == 0
    assert f"  NOT CHECKED   in the list, but not in the folder: {SERVICE}\n" in output
    assert "  NOT COVERED   in the folder, but not in the list: byteor_cloud-0.1.1-py3-none-any.whl\n" in output
    assert f"  file          {SERVICE}" not in output
    result = download.result()
    assert [file["name"] for file in result["files"]] == [WHEEL]
    assert (result["missing"], result["not_covered"]) == ([SERVICE], ["byteor_cloud-0.1.1-py3-none-any.whl"])
    for number in range(9):
        (download.folder / f"\x1b[2K{number}").touch()
    assert "\\u001b[2K3, \\u001b[2K4 and 5 more\n" in download()[1]


def test_folder_without_listed_files_is_refused(download: Download) -> None:
    for name in FILES:
        (download.folder / name).unlink()

    assert download.result()["code"] == "evidence.file_missing"


@pytest.mark.parametrize("replace", [lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero"), os.mkfifo])
def test_listed_file_that_is_not_regular_is_refused(download: Download, replace: Callable[[Path], None]) -> None:
    (download.folder / WHEEL).unlink()
    replace(download.folder / WHEEL)

    assert download.result()["code"] == "evidence.entry_type"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "..", "a/b", "a\\b", "", ".bashrc", "-x", "a\nb", "a\0b", "ä", "x" * 201]
)
def test_list_with_path_or_unusual_file_name_is_refused(download: Download, name: str) -> None:
    (download.folder.parent / "x").write_bytes(b"agent")
    download.list.write_bytes(
        signed_list({**hashes(), name: hashes()[WHEEL]}, sizes={**{n: len(d) for n, d in FILES.items()}, name: 5})
    )

    assert download.result()["code"] == "release.malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": "5ab4b6b4"}, {"commit": COMMIT.upper()}, {"version": ""}, {"name": None}, {"extra": 1},
        {"committed_at": "2026-10-05"}, {"sizes": {}}, {"sizes": {WHEEL: 5}}, {"sizes": {WHEEL: 5, SERVICE: -1}},
        {"sizes": {WHEEL: 5, SERVICE: "7000"}}, {"sizes": [WHEEL, SERVICE]},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_list_is_refused(download: Download, changes: dict[str, Any]) -> None:
    download.list.write_bytes(signed_list(**changes))

    assert download.result()["code"] == "release.malformed"


def test_list_with_duplicate_file_names_is_refused(download: Download) -> None:
    subject = [{"name": WHEEL, "digest": {"sha256": letter * 64}} for letter in "ab"]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": TYPE,
        "predicate": predicate(sizes={WHEEL: 5}),
    }
    for payload in (
        canonical(statement),
        canonical({**statement, "subject": subject[:1]}).replace(b'"sizes":{', b'"sizes":{"%s":6,' % WHEEL.encode()),
    ):
        download.list.write_bytes(canonical(sign_payload(payload)))

        assert download.result()["code"] == "release.malformed"


def sign_payload(payload: bytes) -> dict[str, object]:
    """Return an envelope with a valid signature of any payload, even one that our own code would not sign."""
    kind = b"application/vnd.in-toto+json"
    signature = keys.sign(World().active, b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    return {
        "payloadType": kind.decode(),
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": KID, "sig": base64.b64encode(signature).decode()}],
    }


def test_altered_truncated_and_huge_lists_are_refused(download: Download) -> None:
    whole = signed_list()
    envelope = json.loads(whole)
    payload = base64.b64decode(envelope["payload"])

    def code(data: bytes) -> str:
        download.list.write_bytes(data)
        found: str = download.result()["code"]
        return found

    for altered in (payload.replace(b"0.1.0", b"0.1.1"), flipped(payload, payload.index(b"sha256") + 20)):
        assert code(canonical({**envelope, "payload": base64.b64encode(altered).decode()})) == "release.bad_signature"
    assert code(canonical({**envelope, "signatures": []})) == "release.unsigned"
    assert code(signed_list(type_="urn:byteor:release:v2")) == "release.malformed"
    assert {code(whole[:size]) for size in (0, 1, len(whole) // 2, len(whole) - 1)} == {"release.malformed"}
    assert code(whole + b" " * 1024 * 1024) == "evidence.too_large"
    download.list.write_bytes(whole)
    assert download()[0] == 0


@pytest.mark.parametrize("options", [(), ("--unknown",), ("--bundle", "x")])
def test_exit_code_is_2_for_invalid_command_line(verify: Verifier, options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as left:
        verify.run("release", *options)

    assert left.value.code == 2


def test_exit_code_is_2_if_list_and_key_set_are_missing(verify: Verifier, tmp_path: Path) -> None:
    assert verify.run("release", str(tmp_path / "nothing.json"), "--trust", KID) == 2
    assert verify.output == ""
