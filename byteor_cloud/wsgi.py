"""The WSGI application, which gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from byteor_cloud.database import PROCESS_KIND_VARIABLE

os.environ[PROCESS_KIND_VARIABLE] = "api"
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "byteor_cloud.settings")
application = get_wsgi_application()
