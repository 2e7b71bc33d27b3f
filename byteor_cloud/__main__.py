"""``python -m byteor_cloud`` is ``manage.py`` where no checkout is: in an installation."""

import sys

from byteor_cloud.command_line import main

sys.exit(main())
