from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.agent.identity import Secret
from byteor_cloud.agent.progress import Progress
from byteor_cloud.agent.state import Node, State, StateError
from byteor_cloud.engine.delivery.encoding import sha256


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "a" / "state")


def test_only_the_owner_reads_any_of_it(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    with node.state.locked():
        pass

    for path in [node.folder, *node.folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert {path.name for path in node.folder.iterdir()} == {
        *("agent.json", "api_key", "signing_keys.json", "progress.json", "bundles", "captures", "lock"),
    }


def test_an_existing_folder_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    State(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_new_folder_knows_nothing(state: State) -> None:
    assert state.node() is None
    assert state.credentials() is None
    assert state.keys() is None
    assert state.progress() == Progress()
    assert state.bundle(sha256(b"")) is None
    assert state.capture(sha256(b"")) == {}


def test_a_node_without_a_stored_key_has_no_credentials(state: State) -> None:
    state.save_node(Node("http://h", "a", "e", "n"))
    assert state.credentials() is None

    state.save_api_key(Secret("bor_agent_x"))

    credentials = state.credentials()
    assert credentials is not None
    assert credentials.api_key.reveal() == "bor_agent_x"


@pytest.mark.parametrize("name", ["agent.json", "signing_keys.json", "progress.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_file_is_named(state: State, name: str, content: bytes) -> None:
    (state.folder / name).write_bytes(content)

    with pytest.raises(StateError, match=name):
        (state.node(), state.keys(), state.progress())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(state: State) -> None:
    def broken() -> Any:
        yield b"new"
        raise RuntimeError

    state.save_bundle(sha256(b"old"), [b"old"])
    with pytest.raises(RuntimeError):
        state.save_bundle(sha256(b"old"), broken())

    assert state.bundle(sha256(b"old")) == b"old"
    assert len(list((state.folder / "bundles").iterdir())) == 1


def test_one_agent_a_folder(state: State) -> None:
    with state.locked(), pytest.raises(StateError, match="another agent runs"), State(state.folder).locked():
        pass
    with state.locked():
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError, match="can't be used"):
        State(tmp_path / "file" / "state")


def test_secrets_come_from_the_environment_or_a_file(state: State) -> None:
    (state.folder / "secrets").mkdir()
    (state.folder / "secrets" / "FROM_FILE").write_text("file\n")
    (state.folder / "secrets" / "BOTH").write_text("file")
    environment = {"BOTH": "environment", "BYTEOR_AGENT_API_KEY": "key", "lower": "x"}

    assert state.secret("FROM_FILE", environment) == "file"
    assert state.secret("BOTH", environment) == "environment"
    for name in ("MISSING", "BYTEOR_AGENT_API_KEY", "lower", "../api_key", ""):
        assert state.secret(name, environment) is None
