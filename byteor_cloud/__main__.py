"""``python -m byteor_cloud`` runs the commands of ``manage.py``, a file that the wheel does not contain."""

import sys

from byteor_cloud.command_line import main

sys.exit(main())
