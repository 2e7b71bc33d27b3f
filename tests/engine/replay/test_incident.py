import contextlib
import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteor_cloud.engine.compiler import PipelineSpec, encode, spec_hash
from byteor_cloud.engine.replay import Record, encode_journal, incident
from byteor_cloud.engine.replay.incident import Limits, Reason, RejectedBundle, build, extract, validate

type MakeRing = Callable[..., PipelineSpec]
type Documents = dict[str, dict[str, Any]]


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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder beside a file that an archive might reach for."""
    (tmp_path / "outside").write_bytes(b"untouched")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def unpack(data: bytes, root: Path, limits: Limits | None = None) -> dict[str, bytes]:
    extract(io.BytesIO(data), root, limits)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(data: bytes, root: Path, limits: Limits | None = None) -> str:
    with pytest.raises(RejectedBundle) as caught:
        extract(io.BytesIO(data), root, limits)
    (reason,) = caught.value.reasons
    assert (root.parent / "outside").read_bytes() == b"untouched"
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "root"]
    return reason.code


# --- unpacking


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_any_tar_unpacks(root: Path, format: int) -> None:
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


def test_pax_headers_are_read(root: Path) -> None:
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
def test_hostile_entries_are_refused(root: Path, code: str, members: list[Any]) -> None:
    assert refused(targz(*members), root) == code


def test_what_follows_a_hostile_entry_is_not_written(root: Path) -> None:
    refused(targz(member("a", b"1"), member("../x"), member("b", b"2")), root)

    assert [path.name for path in root.iterdir()] == ["a"]


def test_a_link_made_before_is_not_followed(root: Path) -> None:
    """Not what an archive can do; should a caller's folder not be empty, nothing there is overwritten."""
    (root / "a").symlink_to("../outside")

    with pytest.raises(FileExistsError):
        extract(io.BytesIO(targz(member("a", b"evil"))), root)

    assert (root.parent / "outside").read_bytes() == b"untouched"


def test_limits_are_inclusive(root: Path) -> None:
    data = targz(folder("d"), member("d/a", b"12345"), member("b", b"67890"))

    assert unpack(data, root, Limits(max_bytes=10, max_entries=3)) == {"d/a": b"12345", "b": b"67890"}


def test_one_entry_too_many(root: Path) -> None:
    members = [member("a"), member("b"), member("c")]

    assert refused(targz(*members), root, Limits(max_entries=2)) == "too_many_entries"
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_folders_that_paths_imply_count_too(root: Path) -> None:
    members = [member(f"{number}/" * 10 + "x") for number in range(3)]

    assert refused(targz(*members), root, Limits(max_entries=10)) == "too_many_entries"


def test_one_byte_too_many_is_not_written(root: Path) -> None:
    data = targz(member("a", b"12345"), member("b", b"678901"))

    assert refused(data, root, Limits(max_bytes=10)) == "too_large"
    assert [path.name for path in root.iterdir()] == ["a"]


def test_the_contract_s_limits() -> None:
    assert Limits() == Limits(max_bytes=512 * 1024 * 1024, max_entries=10_000)


def zeros(size: int) -> bytes:
    """A gzip stream of many zeros, small as packed."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as zipped:
        for _ in range(size // 65536):
            zipped.write(bytes(65536))
    return packed.getvalue()


def test_a_bomb_in_an_entry_is_refused_by_its_header(root: Path) -> None:
    header = tarfile.TarInfo("bomb")
    header.size = 600 * 1024 * 1024

    data = gzip.compress(header.tobuf()) + zeros(2 * 1024 * 1024)

    assert refused(data, root) == "too_large"
    assert list(root.iterdir()) == []


def test_a_bomb_after_the_end_is_refused(root: Path) -> None:
    assert refused(targz(member("a", b"1")) + zeros(2 * 1024 * 1024), root) == "too_large"


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_bomb_in_a_header_is_refused_before_it_is_in_memory(root: Path, type: bytes) -> None:
    header = tarfile.TarInfo("bomb")
    header.type = type
    header.size = 400 * 1024 * 1024

    assert refused(gzip.compress(header.tobuf()) + zeros(1024 * 1024), root) == "too_large"


def test_headers_without_end_are_refused(root: Path) -> None:
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
    # gzip writes the second: two processes that collect in two of them would have two names for one test.
    ids=[
        "zip", "plain tar", "no tar", "more after it", "nothing", "empty", "short", "cut in a file", "cut after it",
        "more within", "rubbish within",
    ],
)  # fmt: skip
def test_what_is_no_whole_archive(root: Path, code: str, data: bytes) -> None:
    assert refused(data, root) == code


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = targz(member("a", bytes(range(256)) * 8), member("b", b"y"))
    for cut in range(len(whole)):
        into = tmp_path / str(cut)
        into.mkdir()
        with pytest.raises(RejectedBundle) as caught:
            extract(io.BytesIO(whole[:cut]), into)
        # One byte is not even the magic number of gzip.
        assert caught.value.reasons[0].code == ("not_an_archive" if cut == 1 else "truncated")


SAMPLE = tar(folder("d"), member("d/" + "x" * 120, b"1" * 700), member("ü", b"2"), member("s", pax_headers={"a": "b"}))


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=4)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_never_does_worse_than_being_refused(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]]
) -> None:
    data = bytearray(SAMPLE)
    for at, patch in edits:
        data[at : at + len(patch)] = patch
        header = at // 512 * 512  # a checksum that fits lets the damage through to the parser
        block = data[header : header + 148] + b" " * 8 + data[header + 156 : header + 512]
        data[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    root = tmp_path_factory.mktemp("damaged") / "root"
    root.mkdir()

    with contextlib.suppress(RejectedBundle):
        extract(io.BytesIO(gzip.compress(bytes(data), 1)), root)

    assert list(root.parent.iterdir()) == [root]


# --- building and checking


def write(root: Path, spec_kv: str, documents: Documents, **content: Any) -> None:
    extract(io.BytesIO(build(spec_kv, documents, **content)), root)


def test_a_built_bundle_is_valid(root: Path, ring: MakeRing, documents: Documents) -> None:
    spec = ring("identity")
    documents["runtime_config.json"] = {"stage_config": {"s0": {"x": 1}}, "env": {}}
    documents["unknown.json"] = {"passes": True}
    journal = encode_journal([Record(1, 2, b"3")])

    write(root, encode(spec), documents, journals={"in": journal, "a:fanout": b""}, expected={"out": b""})
    found = validate(root)

    assert (found.spec, found.spec_hash) == (spec, spec_hash(encode(spec)))
    assert found.stage_config == {"s0": {"x": 1}}
    assert found.documents == {name: body for name, body in documents.items() if name != "unknown.json"}
    assert found.journals == {"a:fanout": root / "journal/a:fanout.bin", "in": root / "journal/in.bin"}
    assert found.journals["in"].read_bytes() == journal
    assert found.expected == {"out": root / "expected/out.bin"}


def test_the_spec_hash_is_that_of_the_canonical_text(root: Path, ring: MakeRing, documents: Documents) -> None:
    kv = encode(ring("identity"))

    write(root, kv + "unknown.key=1\n", documents)

    assert validate(root).spec_hash == spec_hash(kv)


def test_the_smallest_bundle(root: Path, ring: MakeRing, documents: Documents) -> None:
    nulls: Documents = {
        name: dict.fromkeys(body) | {"more": 1} for name, body in documents.items() if name != "spec_validation.json"
    }
    nulls["spec_validation.json"] = {"ok": False, "error": "why"}

    write(root, encode(ring("identity")), nulls)
    found = validate(root)

    assert (found.stage_config, found.journals, found.expected) == (None, {}, {})


@pytest.mark.parametrize("runtime_config", [{}, {"stage_config": None}, {"stage_config": {}}])
def test_a_runtime_config_without_parameters_says_that_there_are_none(
    root: Path, ring: MakeRing, documents: Documents, runtime_config: dict[str, Any]
) -> None:
    write(root, encode(ring("identity")), documents | {"runtime_config.json": runtime_config})

    assert validate(root).stage_config == {}


def test_the_same_bundle_has_the_same_bytes(ring: MakeRing, documents: Documents) -> None:
    shuffled = {name: dict(reversed(body.items())) for name, body in reversed(documents.items())}
    once = build(encode(ring("identity")), documents, journals={"a": b"1", "b": b"2"})

    assert build(encode(ring("identity")), shuffled, journals={"b": b"2", "a": b"1"}) == once


def reasons(root: Path) -> list[Reason]:
    with pytest.raises(RejectedBundle) as caught:
        validate(root)
    return caught.value.reasons


def test_all_reasons_are_told_at_once(root: Path) -> None:
    (root / "spec.kv").write_text("spec.v=2\n")
    (root / "spec_validation.json").write_text("{}")
    (root / "runtime.json").write_text('{"crate": {"name": "x"}}')
    (root / "policy_audit.json").write_text(
        '{"ok": 1, "policy_version": 2, "mode": 1, "stage_failure_policy": "retry", "spec_path": 1}'
    )
    (root / "lane_graph_state.json").write_text("[")
    (root / "single_ring_snapshot.json").write_text("[]")
    (root / "runtime_config.json").write_text('{"stage_config": []}')

    found = reasons(root)

    assert found[0].code == "bad_spec"
    assert found[0].detail.startswith("spec.kv: line ")
    assert found[1:] == [
        Reason("missing_file", "environment.json"),
        Reason("bad_json", "single_ring_snapshot.json: line 1, column 1: Not a JSON object."),
        Reason("bad_json", 'lane_graph_state.json: line 1, column 2: Expected a value or "]".'),
        Reason("missing_key", "spec_validation.json: ok"),
        Reason("missing_key", "spec_validation.json: description|error"),
        Reason("missing_key", "runtime.json: crate.version"),
        Reason("missing_key", "policy_audit.json: enforced"),
        Reason("bad_value", "policy_audit.json: policy_version must be 1"),
        Reason("bad_value", "policy_audit.json: stage_failure_policy must be 'stop_pipeline'"),
        Reason("bad_value", "runtime_config.json: stage_config must be an object"),
    ]


def test_an_empty_folder_lacks_everything(root: Path) -> None:
    assert reasons(root) == [
        Reason("missing_file", name)
        for name in (
            "spec.kv",
            "spec_validation.json",
            "runtime.json",
            "policy_audit.json",
            "environment.json",
        )
    ]


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 10**6, b"1" * 5000, b"{} {}"])
def test_json_that_is_none(root: Path, ring: MakeRing, documents: Documents, text: bytes) -> None:
    write(root, encode(ring("identity")), documents)
    (root / "environment.json").write_bytes(text)

    (reason,) = reasons(root)

    assert (reason.code, reason.detail.split(":")[0]) == ("bad_json", "environment.json")


def test_a_crate_that_is_no_object_lacks_its_keys(root: Path, ring: MakeRing, documents: Documents) -> None:
    write(root, encode(ring("identity")), documents | {"runtime.json": {"crate": "x"}})

    assert reasons(root) == [
        Reason("missing_key", "runtime.json: crate.name"),
        Reason("missing_key", "runtime.json: crate.version"),
    ]


def test_documents_are_read_up_to_a_size(
    root: Path, ring: MakeRing, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, encode(ring("identity")), documents)
    size = max((root / name).stat().st_size for name in [*documents, "spec.kv"])
    monkeypatch.setattr(incident, "_MAX_DOCUMENT", size)
    validate(root)

    monkeypatch.setattr(incident, "_MAX_DOCUMENT", 10)
    assert reasons(root) == [Reason("too_large", f"{name}: over 10 bytes") for name in ("spec.kv", *documents)]


def test_a_folder_in_a_file_s_place_is_no_file(root: Path, ring: MakeRing, documents: Documents) -> None:
    write(root, encode(ring("identity")), documents)
    (root / "journal/in.bin").mkdir(parents=True)
    (root / "environment.json").unlink()
    (root / "environment.json").mkdir()

    assert reasons(root) == [Reason("missing_file", "environment.json")]
    (root / "environment.json").rmdir()
    (root / "environment.json").write_text(json.dumps(documents["environment.json"]))
    assert validate(root).journals == {}


GOLDEN = Path(__file__).parent / "golden"


def test_yesterday_s_bundle_still_reads(root: Path) -> None:
    with (GOLDEN / "incident.tar.gz").open("rb") as source:
        extract(source, root)

    found = validate(root)

    assert found.spec_hash == (GOLDEN / "incident.spec_hash").read_text().strip()
    assert list(found.journals) == ["in"]
    assert list(found.expected) == ["out"]


def test_a_document_of_too_many_values_is_refused_before_they_are_built(
    root: Path, ring: MakeRing, documents: Documents
) -> None:
    write(root, encode(ring("identity")), documents)
    poison = b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"
    (root / "environment.json").write_bytes(poison)

    tracemalloc.start()
    (reason,) = reasons(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (reason.code, reason.detail.split(":")[0]) == ("too_large", "environment.json")
    assert peak < 3 * len(poison)
