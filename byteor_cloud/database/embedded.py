"""The embedded database: a PostgreSQL server from a Python package, shared by all commands with the same data folder.

Files in the data folder::

    postgres/            or a link to /var/lib/byteor-cloud/NAME, see `embedded_files.find_home`
        data/            the database cluster, owned by the account that the server runs as
        socket/          mode 0700; or a link to a short folder in /tmp, see `embedded_files.find_socket_folder`
        server.log       the running server's log; server.log.old is the previous server's
        start.lock       locked exclusively while a command checks, starts or stops the server
        users.lock       locked (shared) by each command that uses the server; the last one stops the server
        server.lock      held by the server's processes; if it is free, none of them is alive

The locks use flock(), which the kernel releases however a process dies. A process id alone never proves that a process
is alive, because the system reuses ids.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from byteor_cloud.database.embedded_files import (
    MAJOR,
    PORT,
    SOCKET,
    Account,
    EmbeddedPostgresError,
    find_account,
    find_home,
    find_programs,
    find_socket_folder,
    make_private,
    may_pass,
)

_NAME = "byteor_cloud"  # the name of the database and of its superuser

# Messages of a server that is starting, recovering or stopping. They report its state, not an error.
_STATE_MESSAGES = ("the database system is ", "terminating connection due to ")
_START_SECONDS = 120.0  # long, because recovery after a crash may replay 1 GB of write-ahead log
_STARTS = 3  # the number of attempts to start the server, which may be killed while it starts
_STOP_SECONDS = 30.0
_QUIT_SECONDS = 10.0
_POLL_SECONDS = 0.01

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "jit": "off",  # compiling a short query takes longer than running it
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Log starts, stops and crashes, but not failed statements: they may contain private data, and callers log them.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """One command's use of a data folder's server. Not thread-safe."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._home: Path | None = None
        self._usage: int | None = None

    def acquire(self) -> str:
        """Start the server if necessary, and return the database's URL. Call it again to restart a killed server.

        If this process dies without calling ``release``, the server counts as in use until the child processes that
        this process forked without an exec have also exited. Raises EmbeddedPostgresError.
        """
        with self._one_line_errors():
            home = self._home = find_home(self._data_dir)
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
        """Stop using the server, and shut it down if no other command uses it. Raises EmbeddedPostgresError."""
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
            pass  # another command still uses the server
        finally:
            os.close(usage)

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise EmbeddedPostgresError(
                f"the data folder {self._data_dir} cannot be used: {error.strerror or type(error).__name__}{where}; "
                f"this command runs as user id {os.geteuid()}"
            ) from error


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


def _try_lock(path: Path) -> int | None:
    """Return the lock's descriptor, or None if another process holds the lock."""
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


# The server. The caller of these functions holds the start lock.


def _ensure_running(home: Path) -> str:
    """Start the server if it is not running, wait until it responds, and return the database's URL."""
    account = find_account(home)
    folder = find_socket_folder(home, account)
    at = f"host={quote(str(folder), safe='')}&port={PORT}"
    deadline = time.monotonic() + _START_SECONDS
    starts = 0
    last_error = "no response"
    while time.monotonic() < deadline:
        # A free lock means that no process of the server is alive, not even an orphaned backend.
        lock = _try_lock(home / "server.lock")
        if lock is not None:
            try:
                if starts == _STARTS:
                    raise EmbeddedPostgresError(
                        f"PostgreSQL does not start: {_find_error((home / 'server.log').read_bytes())}"
                    )
                _start(home, account, folder, lock)
                starts += 1
            finally:
                os.close(lock)
        try:
            _ensure_database(f"postgresql://{_NAME}@/postgres?{at}")
        except psycopg.OperationalError as error:
            last_error = " ".join(str(error).split()).rpartition("FATAL: ")[2]
            if not _is_temporary(error):
                raise EmbeddedPostgresError(f"PostgreSQL in {home} refuses connections: {last_error}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return f"postgresql://{_NAME}@/{_NAME}?{at}"
    raise EmbeddedPostgresError(f"PostgreSQL in {home} did not respond within {_START_SECONDS:.0f} s: {last_error}")


def _is_temporary(error: psycopg.OperationalError) -> bool:
    """Return whether a retry can help: the server is starting, recovering or stopping, or does not respond yet."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith("57P")
    return "FATAL: " not in str(error) or any(message in str(error) for message in _STATE_MESSAGES)


def _ensure_database(maintenance_url: str) -> None:
    with psycopg.connect(maintenance_url, autocommit=True, connect_timeout=5) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME]).fetchone() is None:
            connection.execute(f"CREATE DATABASE {_NAME}")


def _start(home: Path, account: Account, folder: Path, lock: int) -> None:
    """Start the server. Its processes inherit `lock`, so the file stays locked while any of them is alive."""
    programs = find_programs(account)
    data = home / "data"
    if os.geteuid() == 0:
        home.chmod(0o711)
        if not may_pass(home, account):
            raise EmbeddedPostgresError(
                f"user id {account.uid}, which the embedded database runs as, has no access to {home}"
            )
    if not data.exists():
        _initialize(home, account, programs)
    created_by = (data / "PG_VERSION").read_text().strip()
    if created_by != MAJOR:
        raise EmbeddedPostgresError(
            f"{data} was created by PostgreSQL {created_by}, but this release contains {MAJOR}:"
            " dump the database with the release that created it, and load the dump into a new data folder"
        )
    _remove_leftovers(data, folder)

    log = home / "server.log"
    if log.exists():
        log.replace(home / "server.log.old")
    arguments = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-p", PORT]
    for name, value in _SETTINGS.items():
        arguments += ["-c", f"{name}={value}"]
    with log.open("wb") as output:
        # The shell exits immediately, so init adopts the server, and no zombie is left when another command stops it.
        _run(["/bin/sh", "-c", '"$@" &', "sh", *arguments], account, output.fileno(), keep=lock)


def _initialize(home: Path, account: Account, programs: Path) -> None:
    """Create the cluster under a temporary name and rename it when it is complete."""
    unfinished = home / "data.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    make_private(unfinished, account)
    with tempfile.TemporaryFile(dir=home) as output:
        arguments = [str(programs / "initdb"), "-D", str(unfinished), "-U", _NAME, "-E", "UTF8"]
        # The operating system may lack the C library's UTF-8 locale. PostgreSQL's built-in one always exists.
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # Everybody with access to the socket's folder may connect. The folder's mode protects the server.
        arguments += ["--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        if _run(arguments, account, output.fileno()) != 0:
            output.seek(0)
            error = _find_error(output.read())
            shutil.rmtree(unfinished)
            raise EmbeddedPostgresError(f"the embedded database cannot be created: {error}")
    unfinished.rename(home / "data")


def _remove_leftovers(data: Path, folder: Path) -> None:
    """Remove a killed server's files. PostgreSQL may refuse to start if another process now has the process id in them.

    Raises EmbeddedPostgresError if a server that another program started serves the cluster on a socket.
    """
    pid_file = data / "postmaster.pid"
    with suppress(FileNotFoundError, IndexError):
        lines = pid_file.read_text().splitlines()
        if _is_listening(Path(lines[4]) / f".s.PGSQL.{lines[3].strip()}"):
            raise EmbeddedPostgresError(
                f"process {lines[0]} serves {data} but was not started by this program: stop that process"
            )
    for leftover in (pid_file, folder / SOCKET, folder / f"{SOCKET}.lock"):
        leftover.unlink(missing_ok=True)


def _stop(home: Path) -> None:
    """Stop the server and wait for its last process to exit. Committed data is safe even after SIGQUIT."""
    server_socket = find_socket_folder(home, find_account(home)) / SOCKET
    for number, timeout in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, _QUIT_SECONDS)):
        deadline = time.monotonic() + timeout
        is_sent = False
        while time.monotonic() < deadline:
            lock = _try_lock(home / "server.lock")
            if lock is not None:
                os.close(lock)
                return
            # Only the main process listens, so a listening socket proves that the process id in the file is valid.
            if not is_sent and _is_listening(server_socket):
                with suppress(FileNotFoundError, ProcessLookupError):  # the server is already stopping
                    os.kill(int((home / "data" / "postmaster.pid").read_text().partition("\n")[0]), number)
                is_sent = True
            time.sleep(_POLL_SECONDS)
    raise EmbeddedPostgresError(f"PostgreSQL in {home} does not stop")


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _run(arguments: list[str], account: Account, output: int, keep: int | None = None) -> int:
    """Run a program as the account in a new session, which a terminal's Ctrl-C does not reach. Return its exit code."""
    is_other = account.uid != os.geteuid()
    return subprocess.run(  # noqa: S603 - our own programs and paths
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},  # without the user's PG* variables, which concern other servers
        user=account.uid if is_other else None,
        group=account.gid if is_other else None,
        extra_groups=() if is_other else None,
        start_new_session=True,
        pass_fds=() if keep is None else (keep,),
        check=False,
    ).returncode


def _find_error(output: bytes) -> str:
    """Return the first error in the log, without its time and process id, or the last line if there is no error."""
    lines = output.decode(errors="replace").strip().splitlines() or ["the log is empty"]
    for line in lines:
        if any(message in line for message in _STATE_MESSAGES):
            continue
        for mark in ("ERROR: ", "FATAL: ", "PANIC: ", "initdb: error: "):
            if mark in line:
                return line.partition(mark)[2].strip()
    return lines[-1]
