"""``python -m byteor.verify``: the same as ``byteor-verify``."""

import sys

from .cli import main

sys.exit(main())
