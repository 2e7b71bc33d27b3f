import pytest

from tests.listening import listening
from tests.races import concurrently
from tests.releases.stories import Clock

__all__ = ["concurrently", "listening"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that advances only when the test moves it."""
    return Clock(monkeypatch)
