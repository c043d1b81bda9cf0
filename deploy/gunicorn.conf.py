"""Gunicorn for vecstore: ``gunicorn -c deploy/gunicorn.conf.py``.

The settings are those of ``vecstore serve``, in `vecstore.server.gunicorn_conf`, and follow the same
``VECSTORE_*`` variables. Maintenance is not started here: run ``vecstore maintain URL`` beside it.
"""

import sys

from vecstore.config import load_config
from vecstore.errors import VecstoreError
from vecstore.server.gunicorn_conf import settings

try:
    globals().update(settings(load_config()))
except VecstoreError as error:
    sys.exit(f"vecstore: {error}")

wsgi_app = "vecstore.server.app:create_app_from_env()"
