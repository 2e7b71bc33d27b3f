import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteor_cloud.database.embedded import EmbeddedPostgres


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a temporary folder that the server's account can enter. Pytest's own folders are private."""
    with tempfile.TemporaryDirectory(prefix="embedded ", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(folder)
    yield embedded
    embedded.release()
