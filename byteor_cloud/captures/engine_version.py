"""The digest of the engine and of the op packages. A verdict is used again only if this digest is still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import byteor
from byteor.engine.canonical import canonical, sha256
from byteor.engine.compiler import split_op
from byteor.engine.compiler.ops import ENTRY_POINT_GROUP

_SKIPPED = (".pyc", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")  # these differ between equal installations


def engine_digest(ops: Iterable[str]) -> str:
    """Return the digest of the engine's version and of the installed packages that provide any of these ops.

    The digest covers the name, the version and the files of each package. The files are those of its installation, and
    those of the module that provides the op, which may be elsewhere.
    """
    keys = {split_op(op)[0] for op in ops}
    packages: dict[str, Any] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name in keys:
            about: dict[str, Any] = packages.setdefault(entry_point.dist.name if entry_point.dist else "", {})
            if entry_point.dist is not None and "version" not in about:
                about |= {"version": entry_point.dist.version, "files": _digest(_installed(entry_point.dist))}
            about[entry_point.name] = [entry_point.value, _digest(_modules(entry_point.module))]
    return sha256(canonical({"version": byteor.__version__, "packages": packages}))


def _installed(package: Distribution) -> Iterator[tuple[str, Path]]:
    """Return the name and the path of each file of an installation. An editable one does not list its sources."""
    return ((str(path), Path(str(path.locate()))) for path in package.files or [])


def _modules(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of each file and folder in the module's top-level package, or of a single module."""
    try:
        spec = find_spec(name.partition(".")[0])
    except ValueError:  # a module without a spec
        spec = None
    if spec is None:
        return
    for folder in map(Path, spec.submodule_search_locations or ()):
        yield from ((str(path.relative_to(folder)), path) for path in folder.rglob("*"))
    if spec.origin is not None and not spec.submodule_search_locations:
        yield Path(spec.origin).name, Path(spec.origin)


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files):
        if not name.endswith(_SKIPPED) and path.is_file():
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
