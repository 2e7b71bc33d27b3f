"""``python -m byteor_cloud.verify``: the same as ``byteor-verify``."""

import sys

from .cli import main

sys.exit(main())
