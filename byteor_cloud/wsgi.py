"""The WSGI application, which gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.utils.module_loading import import_string

from byteor_cloud.database import PROCESS_KIND_VARIABLE

os.environ[PROCESS_KIND_VARIABLE] = "api"
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "byteor_cloud.settings")
# The layer answers what agents send all the time, and passes everything else to Django.
_django = get_wsgi_application()
application = import_string(settings.AGENT_PATH)(_django)
