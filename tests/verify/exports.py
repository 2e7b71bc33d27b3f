"""Functions with which tests alter exports of evidence, as an attacker would."""

from __future__ import annotations

from typing import Any

from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import dsse, keys, tar
from byteor.engine.signing.bundle import FileEntry, Manifest
from tests.engine.signing.conftest import World
from tests.verify.conftest import Change, Files

KID, STRANGER = (keys.kid(keys.public_key(key)) for key in (World().active, World().stranger))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def without(approved: Files, name: str) -> Files:
    return {other: data for other, data in approved.items() if other != name}


def entries(approved: Files) -> Files:
    """Return the files of the bundle except its manifest."""
    return without(tar.unpack(approved["deploy-bundle.tar"]), "manifest.json")


def signed(makers: World, files: Files, **manifest: object) -> Files:
    """Create an export with any files and manifest fields, signed with our key, as a compromised server could."""
    document = {**makers.bundle().manifest.document(), **manifest}
    described = {name: FileEntry.of_data(data) for name, data in files.items()}
    document["files"] = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in described.items()}
    archive = tar.pack({**files, "manifest.json": canonical(document)})
    envelope = dsse.sign_envelope(sha256(archive), Manifest.from_document(document), makers.active)
    separate = {"approval.cred": files["approval.cred"]} if "approval.cred" in files else {}
    return {
        "deploy-bundle.tar": archive,
        "envelope.json": canonical(envelope),
        "signing_keys.json": canonical(makers.keyset.document()),
        **separate,
    }


def _signed_with(**claims: Any) -> Change:
    """Return an edit that replaces the credential in the bundle with ``makers.credential(**claims)``.

    Our key signs the bundle again.
    """

    def change(makers: World, approved: Files) -> Files:
        return signed(makers, {**entries(approved), "approval.cred": makers.credential(**claims).encode()})

    return change
