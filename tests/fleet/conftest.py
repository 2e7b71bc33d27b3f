from tests.listening import listening
from tests.races import concurrently

__all__ = ["concurrently", "listening"]
