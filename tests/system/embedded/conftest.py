import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteor_cloud.embedded import EmbeddedPostgres


@pytest.fixture
def folder() -> Iterator[Path]:
    """A scratch folder that the server's account can reach, which pytest's own are not for root."""
    with tempfile.TemporaryDirectory(prefix="embedded ", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    held = EmbeddedPostgres(folder)
    yield held
    held.release()
