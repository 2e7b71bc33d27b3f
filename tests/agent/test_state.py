from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from byteor.agent.identity import SecretValue
from byteor.agent.progress import Progress
from byteor.agent.state_folder import AgentIdentity, StateError, StateFolder
from byteor.engine.canonical import sha256


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "a" / "state")


def test_state_files_are_readable_only_by_owner(node: Any, plane: Any) -> None:
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


def test_existing_state_folder_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    StateFolder(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_new_state_folder_contains_no_data(state: StateFolder) -> None:
    assert state.identity() is None
    assert state.credentials() is None
    assert state.keys() is None
    assert state.progress() == Progress()
    assert state.bundle(sha256(b"")) is None
    assert state.capture(sha256(b"")) == {}


def test_unfinished_file_of_interrupted_write_is_not_part_of_stored_capture(state: StateFolder) -> None:
    state.save_capture(sha256(b""), {"journal/prices": b"x"})
    [folder] = (state.folder / "captures").iterdir()
    (folder / "journal/.k2x9").write_bytes(b"unfinished")

    assert state.capture(sha256(b"")) == {"journal/prices": b"x"}


def test_agent_without_stored_key_has_no_credentials(state: StateFolder) -> None:
    state.save_identity(AgentIdentity("http://h", "a", "e", "n"))
    assert state.credentials() is None

    state.save_api_key(SecretValue("bor_agent_x"))

    credentials = state.credentials()
    assert credentials is not None
    assert credentials.api_key.reveal() == "bor_agent_x"


@pytest.mark.parametrize("name", ["agent.json", "signing_keys.json", "progress.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_error_contains_name_of_damaged_state_file(state: StateFolder, name: str, content: bytes) -> None:
    (state.folder / name).write_bytes(content)

    with pytest.raises(StateError, match=name):
        (state.identity(), state.keys(), state.progress())


def test_failed_write_keeps_old_file_and_leaves_no_partial_file(state: StateFolder) -> None:
    def interrupted_download() -> Any:
        yield b"new"
        raise RuntimeError

    state.save_bundle(sha256(b"old"), [b"old"])
    with pytest.raises(RuntimeError):
        state.save_bundle(sha256(b"old"), interrupted_download())

    assert state.bundle(sha256(b"old")) == b"old"
    assert len(list((state.folder / "bundles").iterdir())) == 1


def test_state_folder_can_be_locked_by_only_one_agent_at_a_time(state: StateFolder) -> None:
    with (
        state.locked(),
        pytest.raises(StateError, match="another agent is running"),
        StateFolder(state.folder).locked(),
    ):
        pass
    with state.locked():
        pass


def test_inaccessible_state_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError, match="cannot be used"):
        StateFolder(tmp_path / "file" / "state")


def test_secret_is_read_from_environment_variable_or_file(state: StateFolder) -> None:
    (state.folder / "secrets").mkdir()
    (state.folder / "secrets" / "FROM_FILE").write_text("file\n")
    (state.folder / "secrets" / "BOTH").write_text("file")
    environment = {"BOTH": "environment", "BYTEOR_AGENT_API_KEY": "key", "lower": "x"}

    assert state.secret("FROM_FILE", environment) == "file"
    assert state.secret("BOTH", environment) == "environment"
    for name in ("MISSING", "BYTEOR_AGENT_API_KEY", "lower", "../api_key", ""):
        assert state.secret(name, environment) is None
