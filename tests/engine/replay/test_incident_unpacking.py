"""Incident archives are unpacked within limits, and nothing is written outside the folder."""

import contextlib
import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteor.engine.replay.incident import ArchiveLimits, RejectedBundle, extract_incident


def member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def targz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return gzip.compress(tar(*members))


def unpack(data: bytes, root: Path, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    extract_incident(io.BytesIO(data), root, limits)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(data: bytes, root: Path, limits: ArchiveLimits | None = None) -> str:
    with pytest.raises(RejectedBundle) as caught:
        extract_incident(io.BytesIO(data), root, limits)
    (reason,) = caught.value.reasons
    assert (root.parent / "outside").read_bytes() == b"untouched"
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "root"]
    return reason.code


# --- unpacking


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archive_in_ustar_gnu_or_pax_format_is_unpacked(root: Path, format: int) -> None:
    long = "journal/" + "x" * 90
    data = tar(
        folder("."),
        member("./spec.kv", b"spec"),
        folder("journal"),
        member("journal/in.bin", b"\0" * 5000, mode=0o4777, uid=0, mtime=99),
        member(long, b"long"),
        member("a/b/c", b"deep"),
        folder("a"),
        format=format,
    )

    assert unpack(gzip.compress(data), root) == {
        "spec.kv": b"spec",
        "journal/in.bin": b"\0" * 5000,
        long: b"long",
        "a/b/c": b"deep",
    }
    assert (root / "journal/in.bin").stat().st_mode & 0o7111 == 0


def test_long_non_ascii_name_in_pax_header_is_read(root: Path) -> None:
    name = "journal/ü" + "x" * 200

    assert unpack(targz(member(name, b"x", mtime=1.5)), root) == {name: b"x"}


@pytest.mark.parametrize(
    ("code", "members"),
    [
        ("bad_path", [member("/etc/passwd")]),
        ("bad_path", [member("../outside")]),
        ("bad_path", [member("a/../../outside")]),
        ("bad_path", [member("a/..")]),
        ("bad_path", [folder("..")]),
        ("bad_path", [member(".")]),
        ("bad_path", [member("")]),
        ("bad_path", [member("x" * 256)]),
        ("bad_path", [member("/".join(["x" * 200] * 6))]),
        ("bad_path", [member("/".join("x" * 17))]),
        ("bad_path", [member("caf\udce9")]),
        ("bad_path", [member("a", pax_headers={"path": "a\0b"})]),
        ("bad_entry", [member("link", type=tarfile.SYMTYPE, linkname="../outside")]),
        ("bad_entry", [member("a"), member("link", type=tarfile.LNKTYPE, linkname="a")]),
        ("bad_entry", [member("dev", type=tarfile.CHRTYPE)]),
        ("bad_entry", [member("dev", type=tarfile.BLKTYPE)]),
        ("bad_entry", [member("pipe", type=tarfile.FIFOTYPE)]),
        ("bad_entry", [member("odd", type=b"Z")]),
        ("bad_entry", [member("sparse", type=tarfile.GNUTYPE_SPARSE)]),
        (
            "bad_entry",
            [member("sparse", b"0\n", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})],
        ),
        ("duplicate_entry", [member("a", b"1"), member("a", b"2")]),
        ("duplicate_entry", [member("a", b"1"), member("./a", b"2")]),
        ("duplicate_entry", [member("a"), folder("a")]),
        ("duplicate_entry", [folder("a"), member("a")]),
        ("duplicate_entry", [folder("a"), folder("a/")]),
        ("duplicate_entry", [member("a"), member("a/b")]),
        ("duplicate_entry", [member("a/b"), member("a")]),
    ],
)
def test_hostile_entry_is_refused(root: Path, code: str, members: list[Any]) -> None:
    assert refused(targz(*members), root) == code


def test_entries_after_hostile_entry_are_not_written(root: Path) -> None:
    refused(targz(member("a", b"1"), member("../x"), member("b", b"2")), root)

    assert [path.name for path in root.iterdir()] == ["a"]


def test_existing_link_is_not_followed(root: Path) -> None:
    """Check a link that exists in the caller's folder, since an archive cannot create one."""
    (root / "a").symlink_to("../outside")

    assert refused(targz(member("a", b"evil")), root) == "unwritable"


def test_archive_exactly_at_limits_is_unpacked(root: Path) -> None:
    data = targz(folder("d"), member("d/a", b"12345"), member("b", b"67890"))

    assert unpack(data, root, ArchiveLimits(max_bytes=10, max_entries=3)) == {"d/a": b"12345", "b": b"67890"}


def test_archive_with_too_many_entries_is_refused(root: Path) -> None:
    members = [member("a"), member("b"), member("c")]

    assert refused(targz(*members), root, ArchiveLimits(max_entries=2)) == "too_many_entries"
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_number_of_implicit_folders_is_limited(root: Path) -> None:
    members = [member(f"{number}/" * 10 + "x") for number in range(3)]

    assert refused(targz(*members), root, ArchiveLimits(max_entries=10)) == "too_many_entries"


def test_file_that_takes_archive_over_size_limit_is_not_written(root: Path) -> None:
    data = targz(member("a", b"12345"), member("b", b"678901"))

    assert refused(data, root, ArchiveLimits(max_bytes=10)) == "too_large"
    assert [path.name for path in root.iterdir()] == ["a"]


def test_default_limits_are_512_mib_and_10000_entries() -> None:
    assert ArchiveLimits() == ArchiveLimits(max_bytes=512 * 1024 * 1024, max_entries=10_000)


def zeros(size: int) -> bytes:
    """Return a small gzip stream that unpacks to ``size`` zeros. The size must be a multiple of 65,536."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as zipped:
        for _ in range(size // 65536):
            zipped.write(bytes(65536))
    return packed.getvalue()


def test_decompression_bomb_in_entry_is_refused_because_of_size_in_header(root: Path) -> None:
    header = tarfile.TarInfo("bomb")
    header.size = 600 * 1024 * 1024

    data = gzip.compress(header.tobuf()) + zeros(2 * 1024 * 1024)

    assert refused(data, root) == "too_large"
    assert list(root.iterdir()) == []


def test_decompression_bomb_after_archive_end_is_refused(root: Path) -> None:
    assert refused(targz(member("a", b"1")) + zeros(2 * 1024 * 1024), root) == "too_large"


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_decompression_bomb_in_header_is_refused(root: Path, type: bytes) -> None:
    header = tarfile.TarInfo("bomb")
    header.type = type
    header.size = 400 * 1024 * 1024

    assert refused(gzip.compress(header.tobuf()) + zeros(1024 * 1024), root) == "too_large"


def test_long_series_of_headers_is_refused(root: Path) -> None:
    header = tarfile.TarInfo("more")
    header.type = tarfile.XHDTYPE
    record = b"12 path=abc\n"
    header.size = len(record)
    block = header.tobuf() + record.ljust(512, b"\0")

    assert refused(gzip.compress(block * 1000), root) in {"too_large", "not_an_archive"}


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("not_an_archive", b"PK\3\4 some zip"),
        ("not_an_archive", tar(member("a"))),
        ("not_an_archive", gzip.compress(b"text, not tar. " * 100)),
        ("not_an_archive", targz(member("a")) + b"garbage"),
        ("truncated", b""),
        ("truncated", gzip.compress(b"")),
        ("truncated", gzip.compress(b"short")),
        ("truncated", gzip.compress(tar(member("a", b"x" * 2000))[:1500])),
        ("truncated", gzip.compress(tar(member("a", b"x" * 2000))[: 512 * 5])),
        ("truncated", gzip.compress(tar(member("a", b"x")) + b"more")),
        ("truncated", gzip.compress(tar(member("a", b"x"))[:1024] + b"\xff" * 512 + tar(member("b", b"y")))),
    ],
    # Ids from the data would contain gzip's timestamp, so they could differ between pytest processes.
    ids=[
        "zip", "plain tar", "no tar", "garbage after gzip", "no bytes", "empty gzip", "short", "cut in file",
        "cut after file", "garbage after tar", "damaged header",
    ],
)  # fmt: skip
def test_malformed_or_incomplete_archive_is_refused(root: Path, code: str, data: bytes) -> None:
    assert refused(data, root) == code


def test_archive_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    whole = targz(member("a", bytes(range(256)) * 8), member("b", b"y"))
    for cut in range(len(whole)):
        into = tmp_path / str(cut)
        into.mkdir()
        with pytest.raises(RejectedBundle) as caught:
            extract_incident(io.BytesIO(whole[:cut]), into)
        # A single byte is too short for the magic number of gzip.
        assert caught.value.reasons[0].code == ("not_an_archive" if cut == 1 else "truncated")


SAMPLE = tar(folder("d"), member("d/" + "x" * 120, b"1" * 700), member("ü", b"2"), member("s", pax_headers={"a": "b"}))


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=4)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_damaged_archive_is_refused_or_unpacked_inside_folder(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]]
) -> None:
    data = bytearray(SAMPLE)
    for at, patch in edits:
        data[at : at + len(patch)] = patch
        header = at // 512 * 512  # the header gets a valid checksum, so that the damage reaches the parser
        block = data[header : header + 148] + b" " * 8 + data[header + 156 : header + 512]
        data[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    root = tmp_path_factory.mktemp("damaged") / "root"
    root.mkdir()

    with contextlib.suppress(RejectedBundle):
        extract_incident(io.BytesIO(gzip.compress(bytes(data), 1)), root)

    assert list(root.parent.iterdir()) == [root]
