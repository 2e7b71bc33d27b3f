import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import ENTRY_POINT_GROUP, Ops, compile_plan, split_op

EXAMPLE = Path(__file__).parent / "example_stages"


def install(folder: Path, name: str, entry_points: dict[str, str]) -> None:
    """Write the metadata that an installed wheel with these entry points has."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINT_GROUP}]", *lines, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder for packages that is on the import path. The example package can also be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("acme_stages", None)


def compile_op(ring: Any, op: str, ops: Ops | None = None) -> list[tuple[str, str, str]]:
    ring["single_ring"]["stages"] = [{"id": "a", "op": op}]
    compilation = compile_plan(ring, ops=ops)
    return [(d.code.value, d.message, d.hint) for d in compilation.diagnostics]


def test_installed_ops_compile_and_run(site: Path, ring: Any) -> None:
    install(site, "acme", {"repeat": "acme_stages:repeat", "drop_blank": "acme_stages"})
    ops = Ops.installed()

    assert list(ops)[-2:] == ["drop_blank", "repeat"]
    assert compile_op(ring, "repeat:3", ops) == []
    assert compile_op(ring, "drop_blank", ops) == []
    repeat, drop = ops.process("repeat:3"), ops.process("drop_blank")
    assert repeat is not None
    assert drop is not None
    assert repeat(b"ab", {"separator": "-"}) == b"ab-ab-ab"
    assert drop(b"ab", None) == b"ab"
    assert drop(b" ", None) is None
    assert ops.process("identity") is None
    assert ops.process("nothing:1") is None


def test_installed_op_checks_its_argument(site: Path, ring: Any) -> None:
    install(site, "acme", {"repeat": "acme_stages:repeat", "moody": "acme_stages:moody"})
    ops = Ops.installed()

    assert compile_op(ring, "repeat:two", ops) == [
        (
            "stage.invalid_op",
            'The op "repeat:two": it needs a count, such as \\"repeat:2\\".',
            'Write the op as documented by the package that provides "repeat".',
        )
    ]
    assert compile_op(ring, "moody", ops)[0][1] == (
        'The op "moody": checking it raised LookupError: \\ud800 no table\\nfound.'
    )
    assert compile_op(ring, "repaet:2", ops) == [
        ("stage.unknown_op", 'The op "repaet:2" is unknown.', 'Write "repeat:2".')
    ]


def test_uninstalled_op_is_unknown(ring: Any) -> None:
    assert [code for code, *_ in compile_op(ring, "repeat:3")] == ["stage.unknown_op"]


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("gone", "acme_stages:nothing", "loading it raised AttributeError: module 'acme_stages' has no"),
        ("missing", "acme_nowhere", "loading it raised ModuleNotFoundError: No module named 'acme_nowhere'"),
        ("shapeless", "acme_stages:ENTRY", "it does not provide validate and process"),
        ("flat", "acme_stages:flat", "it does not provide validate and process"),
        ("Upper", "acme_stages", "its key may contain only a-z, 0-9 and _, and must start with a letter"),
    ],
)
def test_broken_entry_point_affects_only_its_own_op(
    site: Path, ring: Any, monkeypatch: pytest.MonkeyPatch, *, key: str, value: str, why: str
) -> None:
    acme = importlib.import_module("acme_stages")
    monkeypatch.setattr(acme, "ENTRY", object(), raising=False)
    monkeypatch.setattr(acme, "flat", type("Flat", (), {"validate": 1, "process": 2})(), raising=False)
    install(site, "acme", {key: value, "repeat": "acme_stages:repeat"})
    ops = Ops.installed()

    assert compile_op(ring, "repeat:3", ops) == []
    ((code, message, hint),) = compile_op(ring, key, ops)
    assert code == "stage.unknown_op"
    assert message.startswith(f'The op "{key}" is installed but cannot be used: {why}')
    assert hint == "Repair or remove a package that provides it."


def test_package_cannot_replace_op_of_compiler_or_another_package(site: Path, ring: Any) -> None:
    install(site, "acme", {"repeat": "acme_stages:repeat", "identity": "acme_stages"})
    install(site, "other", {"repeat": "acme_stages"})
    ops = Ops.installed()

    assert ops.broken == {
        "identity": "it would replace a built-in op",
        "repeat": "several packages provide it",
    }
    assert compile_op(ring, "identity", ops) == []


@pytest.mark.parametrize(
    "op",
    [
        "http_post:http://localhost",
        "http_post:https://example.org:8443/a/b?c=d%20e#f",
        "http_post:http://[::1]:9000/",
        "http_post:http://host_name./",
        "HTTP_post".lower() + ":HTTPS://EXAMPLE.org/",
        "exec:/usr/bin/tr|a-z|A-Z",
        "exec:cat",
        "exec:cat||",
        "dataguard_fused",
    ],
)
def test_well_formed_op_compiles(ring: Any, op: str) -> None:
    assert compile_op(ring, op) == []


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("identity:", "it accepts no argument"),
        ("dataguard_check:x", "it accepts no argument"),
        ("http_post", "it needs a URL"),
        ("http_post:", "it needs a URL"),
        ("http_post:http://a b/", "the URL contains a character that must be encoded"),
        ("http_post:/hook", "the URL must start with http:// or https://"),
        ("http_post:file:///etc/passwd", "the URL must start with http:// or https://"),
        ("http_post:http://", "the URL must have a valid host, and its port must not be 0"),
        ("http_post:http:///x", "the URL must have a valid host, and its port must not be 0"),
        ("http_post:http://a..b/", "the URL must have a valid host, and its port must not be 0"),
        ("http_post:http://a:0/", "the URL must have a valid host, and its port must not be 0"),
        ("http_post:http://a:65536/", "the URL's host or port is malformed"),
        ("http_post:http://a:b/", "the URL's host or port is malformed"),
        ("http_post:http://[::1/", "the URL's host or port is malformed"),
        ("http_post:http://[::x]/", "the URL's host or port is malformed"),
        ("http_post:http://user:secret@host/", "the URL must not contain credentials"),
        ("exec", "it needs a program, without spaces around it"),
        ("exec:", "it needs a program, without spaces around it"),
        ("exec:|x", "it needs a program, without spaces around it"),
        ("exec: cat", "it needs a program, without spaces around it"),
    ],
)
def test_malformed_argument_is_reported_with_reason(ring: Any, op: str, why: str) -> None:
    ((code, message, _),) = compile_op(ring, op)

    assert code == "stage.invalid_op"
    assert message == f'The op "{op}": {why}.'


def test_split_op_splits_at_first_colon() -> None:
    assert split_op("identity") == ("identity", None)
    assert split_op("http_post:http://a:1") == ("http_post", "http://a:1")
    assert split_op("exec:") == ("exec", "")
