import pytest

from tests.listening import listening
from tests.races import at_once
from tests.releases.stories import Clock

__all__ = ["at_once", "listening"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that advances only when the test moves it."""
    return Clock(monkeypatch)
