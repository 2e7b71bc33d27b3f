from tests.listening import listening
from tests.races import at_once

__all__ = ["at_once", "listening"]
