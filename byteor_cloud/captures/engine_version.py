"""The digest of what a verdict depends on besides its fixture and configurations: the engine and the op packages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import Distribution, entry_points
from typing import Any

import byteor
from byteor.engine.canonical import canonical, sha256
from byteor.engine.compiler import split_op
from byteor.engine.compiler.ops import ENTRY_POINT_GROUP

_SKIPPED = (".pyc", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")  # these differ between equal installations


def engine_digest(ops: Iterable[str]) -> str:
    """Return the digest of the engine's version and of the installed packages that provide any of these ops.

    A package counts with its name, its version and the contents of its files, which are read again at each call.
    """
    keys = {split_op(op)[0] for op in ops}
    packages: dict[str, Any] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name in keys:
            if entry_point.dist is None:
                packages[entry_point.value] = None
            else:
                packages[entry_point.dist.name] = [entry_point.dist.version, _files_digest(entry_point.dist)]
    return sha256(canonical({"version": byteor.__version__, "packages": packages}))


def _files_digest(package: Distribution) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.files or [], key=str):
        located = path.locate()
        if not str(path).endswith(_SKIPPED) and located.is_file():  # type: ignore[attr-defined]  # a path of the disk
            digest.update(f"{path}\0".encode())
            digest.update(hashlib.sha256(located.read_bytes()).digest())  # type: ignore[attr-defined]
    return digest.hexdigest()
