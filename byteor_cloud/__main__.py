"""``python -m byteor_cloud``: the commands of ``manage.py`` in an installation, which has no such file."""

import sys

from byteor_cloud.command_line import main

sys.exit(main())
