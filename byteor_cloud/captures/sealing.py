"""Limits and seals for the child processes that handle tenants' data. Does not use Django.

A sealed process has no network access, cannot start programs or act on other processes, and opens only files that
Python itself needs and the paths that it is given. The kernel enforces this, even for native code (``ctypes``,
extension modules) and for root. Sealing needs no privileges:

- *Landlock* (Linux 5.13) restricts which files can be opened. It excludes ``/proc`` and the server's secrets.
- *seccomp* blocks system calls that open sockets, start programs or act on other processes.
- The process drops all capabilities but one for reading files, so that the child of a root process is restricted too.

On other systems, and in containers that forbid these mechanisms, an audit hook still keeps Python code from connecting
and from starting programs. ``in_force`` reports which seals the system supports. If a supported seal cannot be applied,
``seal`` raises OSError, and the process must exit.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import byteor
import byteor_cloud

MEMORY_BYTES = 256 * 1024 * 1024
"""The most memory that a child may use beyond what it uses when ``limit`` is called."""
_MAX_FILES = 1024

# The events of Python's audit hooks (``sys.addaudithook``) for actions that a sealed process must not take. Our hook
# raises Forbidden, which is clearer than the kernel's error.
_FORBIDDEN = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
)  # fmt: skip


class Forbidden(RuntimeError):
    """Python code tried to use the network, start a program or fork in a sealed process."""


def environment(more_paths: Iterable[str] = (), **variables: str) -> dict[str, str]:
    """Return all environment variables of a child. They contain none of the server's settings.

    The child can import our packages, and modules from ``more_paths``.
    """
    installed = _installed()
    paths = dict.fromkeys(str(each.parent) for each in _own_packages() if each.parent not in installed)
    # With more than one malloc arena, each thread would reserve 64 MiB of the memory limit for its arena.
    return {
        "PYTHONPATH": os.pathsep.join([*paths, *more_paths]), "PATH": os.defpath,
        "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1",
        **variables,
    }  # fmt: skip


def _own_packages() -> list[Path]:
    return [Path(each.__path__[0]).resolve() for each in (byteor, byteor_cloud)]


@cache
def _installed() -> frozenset[Path]:
    """Return the folders of installed packages, which every child of this interpreter finds automatically."""
    return frozenset(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib"))


def limit(*, processor_s: int | None = None, file_bytes: int | None = None) -> None:
    """Limit this process's memory (on Linux) and open files, and do not write core dumps to files.

    ``processor_s`` also limits its processor time, and ``file_bytes`` the size of each file that it writes.
    """
    _lower(resource.RLIMIT_CORE, 0)  # a core dump would contain tenants' data
    _lower(resource.RLIMIT_NOFILE, _MAX_FILES)
    if processor_s is not None:
        _lower(resource.RLIMIT_CPU, processor_s)
    if file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, file_bytes)
    if sys.platform == "linux":  # macOS does not enforce this limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES)


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def in_force() -> Mapping[str, str | None]:
    """Return the mechanism that enforces each restriction of sealed processes on this system, or None if none does."""
    landlock, seccomp = _landlock_version() > 0, _has_seccomp()
    return {
        "files": "landlock" if landlock else None,
        "network": "seccomp" if seccomp else "audit hook",
        "programs": "seccomp" if seccomp else "audit hook",
        "processes": "seccomp" if seccomp else None,
        "memory": "rlimit" if sys.platform == "linux" else None,
    }


def seal(*, readable: Iterable[Path] = (), writable: Iterable[Path] = ()) -> None:
    """Seal this process, which must have no other threads. Raises OSError if a supported seal cannot be applied.

    The process can still read Python's files and ``readable``, and read and write ``writable``. This cannot be undone.
    """
    if sys.platform == "linux":
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _drop_capabilities()
        if version := _landlock_version():
            _restrict_files(version, [*_python_paths(), *readable], [*writable, Path(os.devnull)])
        if _has_seccomp():
            _filter_calls(_MACHINES[os.uname().machine])
    sys.addaudithook(_refuse)


def _refuse(event: str, _: Any) -> None:
    if event in _FORBIDDEN:
        raise Forbidden(f"{event} is not permitted in this process")


def _call(name: str, *args: Any) -> int:
    """Call a function of the C library. Raises OSError."""
    result: int = getattr(_libc(), name)(*(ctypes.c_long(each) if isinstance(each, int) else each for each in args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


# -- files

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_CHANGE_DIR = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13  # the rights to remove, create and move files and folders
_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
"""The rights to files that each version of Landlock added."""
_SYSTEM_PATHS = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/dev/urandom", "/dev/zero",
)  # fmt: skip


@cache
def _landlock_version() -> int:
    """Return the version of Landlock, or 0 if the system does not support or permit it."""
    try:
        return _call("syscall", _CREATE_RULESET, None, 0, 1) if sys.platform == "linux" else 0
    except OSError:
        return 0


def _python_paths() -> list[Path]:
    """Return the paths that a Python program reads: modules, libraries, time zones and random numbers.

    The folder of a checkout is left out, because it often contains the data folder.
    """
    ours = _own_packages()
    above = {parent for each in ours for parent in each.parents}
    modules = {Path(each).resolve() for each in sys.path if each} - above | _installed()
    standard = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    others = [Path(sys.base_prefix, "lib"), *map(Path, _SYSTEM_PATHS)]
    return [*ours, *modules, *standard, *others]


def _restrict_files(version: int, readable: Iterable[Path], writable: Iterable[Path]) -> None:
    handled = sum(rights for since, rights in _RIGHTS.items() if since <= version)
    rules = _call("syscall", _CREATE_RULESET, struct.pack("<QQQ", handled, 0, 0), 24, 0)
    writing = _WRITE_FILE | _READ_FILE | _READ_DIR | _TRUNCATE | _CHANGE_DIR
    for rights, paths in ((_READ_FILE | _READ_DIR, readable), (writing, writable)):
        for path in paths:
            with suppress(FileNotFoundError):
                _allow(rules, path, rights & handled)
    _call("syscall", _RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        _call("syscall", _ADD_RULE, rules, 1, struct.pack("<Qi", rights, opened), 0)
    finally:
        os.close(opened)


# -- system calls


class _Machine(NamedTuple):
    column: int  # the index in the tuples of ``_REFUSED``
    architecture: int
    clone: int
    seccomp: int
    own_process: tuple[int, ...]  # kill, tgkill and prlimit64, which are allowed only on the process itself


_MACHINES = {
    "x86_64": _Machine(0, 0xC000003E, 56, 317, (62, 234, 302)),
    "aarch64": _Machine(1, 0xC00000B7, 220, 277, (129, 131, 261)),
}
_REFUSED: Mapping[str, tuple[int, int | None]] = {
    # network access
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # starting other programs, and creating namespaces, which would give the process capabilities
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "unshare": (272, 97),
    "setns": (308, 268),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "tkill": (200, 130), "setpriority": (141, 140), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30), "move_pages": (279, 239), "migrate_pages": (256, 238), "perf_event_open": (298, 241),
    # shared memory and messages between processes, and memory that no limit counts
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # file operations that Landlock does not cover: modes, owners, attributes and times; and file handles
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # other parts of the kernel that Python does not need
    "bpf": (321, 280), "userfaultfd": (323, 282), "syslog": (103, 116), "personality": (135, 92),
}  # fmt: skip
"""The refused system calls, with their numbers on x86_64 and aarch64. None: the machine does not have the call."""
_CLONE3 = 435
_NEWEST = 462  # the highest number of a call that this list considers; calls with higher numbers fail
_CLONE_THREAD = 0x10000
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # BPF instructions


@cache
def _has_seccomp() -> bool:
    machine = _MACHINES.get(os.uname().machine)
    if sys.platform != "linux" or machine is None or sys.maxsize < 2**32:
        return False
    try:
        _call("syscall", machine.seccomp, 2, 0, struct.pack("<I", _ERROR))
    except OSError:
        return False
    return True


def _drop_capabilities() -> None:
    """Drop all capabilities except CAP_DAC_READ_SEARCH, which root may need to read Python's files."""
    header, sets = struct.pack("<Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _call("capget", header, sets)
    kept = int.from_bytes(sets.raw[4:8], "little") & 1 << 2
    _call("capset", header, struct.pack("<6I", kept, kept, 0, 0, 0, 0))


def _filter_calls(machine: _Machine) -> None:
    program = b"".join(_instructions(machine))
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("syscall", machine.seccomp, 1, 1, head)  # operation 1 sets a filter, and flag 1 applies it to all threads


def _instructions(machine: _Machine) -> list[bytes]:
    """Return the filter's code. Its input has the call's number at byte 0, architecture at 4, first argument at 16."""

    def do(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("<HBBI", code, if_true, if_false, operand)

    # ``refuse`` makes a call fail with EPERM (1), and ``absent`` with ENOSYS (38), as if the kernel did not have the
    # call.
    refuse, absent, allow = do(_RETURN, _ERROR | 1), do(_RETURN, _ERROR | 38), do(_RETURN, _ALLOW)
    program = [do(_LOAD, 4), do(_EQUAL, machine.architecture, 1, 0), do(_RETURN, _KILL), do(_LOAD, 0)]
    program += [do(_GREATER, _NEWEST, 0, 1), absent]
    program += [do(_EQUAL, _CLONE3, 0, 1), absent]  # the C library then calls clone, whose flags a filter can check
    program += [do(_EQUAL, machine.clone, 0, 4), do(_LOAD, 16), do(_ANY_BIT, _CLONE_THREAD, 1, 0), refuse, allow]
    for number in machine.own_process:
        program += [do(_EQUAL, number, 0, 5), do(_LOAD, 16), do(_EQUAL, os.getpid(), 2, 0)]
        # Process id 0 means this process in prlimit64, but its whole group in kill.
        program += [do(_EQUAL, 0, 1 if number == machine.own_process[-1] else 0, 0), refuse, allow]
    for refused in filter(None, (numbers[machine.column] for numbers in _REFUSED.values())):
        program += [do(_EQUAL, refused, 0, 1), refuse]
    return [*program, allow]
