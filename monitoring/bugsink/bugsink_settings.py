"""Bugsink of the local stack: one user, one project, its database in /data, and nothing that calls home.

Read by: Bugsink (Django) in the services bugsink and bugsink-setup, as DJANGO_SETTINGS_MODULE, in place of
the image's own configuration, whose secrets would have to be in the environment. Tested by
tests/integration/test_bugsink_stack.py, with the real Bugsink.

BUGSINK_BASE_URL is where people open it; with https:// cookies are for https only. BUGSINK_DATA and
BUGSINK_SECRETS say where the database and the secrets are; what is in BUGSINK_SCRATCH may be lost at a
restart: the queue of what is to be stored, which is served within milliseconds.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from bugsink.settings.default import *  # type: ignore[import-not-found]  # noqa: F403 - Bugsink's way
from bugsink.settings.default import DATABASES, SILENCED_SYSTEM_CHECKS, TEMPLATES

_DATA = Path(os.environ.get("BUGSINK_DATA", "/data"))
_SECRETS = Path(os.environ.get("BUGSINK_SECRETS", "/run/secrets"))
_SCRATCH = Path(os.environ.get("BUGSINK_SCRATCH", "/tmp"))  # noqa: S108 - a file system of its own
_BASE_URL = os.environ.get("BUGSINK_BASE_URL", "http://localhost:8010").rstrip("/")

SECRET_KEY = (_SECRETS / "bugsink_secret_key").read_text().strip()
TIME_ZONE = "UTC"
DATABASES["default"]["NAME"] = str(_DATA / "db.sqlite3")
DATABASES["snappea"]["NAME"] = str(_SCRATCH / "snappea.sqlite3")
SNAPPEA = {
    "TASK_ALWAYS_EAGER": False,
    "WORKAHOLIC": True,
    "NUM_WORKERS": 2,
    "PID_FILE": None,
    "WAKEUP_CALLS_DIR": str(_SCRATCH / "snappea.wakeup"),
}
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"  # Alertmanager tells people

# The service reports to http://bugsink:8000, people come through the gateway, the health check from inside.
ALLOWED_HOSTS = [urlsplit(_BASE_URL).hostname, "localhost", "127.0.0.1", "bugsink"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_NAME = (
    "glasshouse_bugsink_session"  # cookies do not know ports, and this is localhost
)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _BASE_URL.startswith("https://")
if not SESSION_COOKIE_SECURE:
    SILENCED_SYSTEM_CHECKS += ["security.W012", "security.W016"]  # what would complain of that

# An event's trace and logs are addresses among its details, which Bugsink shows as text.
TEMPLATES[0]["OPTIONS"]["builtins"] = ["bugsink_links"]

BUGSINK = {
    "BASE_URL": _BASE_URL,
    "SITE_TITLE": "Glasshouse errors",
    "SINGLE_USER": True,
    "SINGLE_TEAM": True,
    "USER_REGISTRATION": "CB_NOBODY",
    "TEAM_CREATION": "CB_NOBODY",
    "PHONEHOME": False,
    "INGEST_STORE_BASE_DIR": str(_SCRATCH / "bugsink-ingestion"),
    "MAX_EMAILS_PER_HOUR": 0,
    # The service sends at most 100 a minute and process; a month of them must not fill a disk.
    "MAX_EVENTS_PER_PROJECT_PER_5_MINUTES": 2_500,
    "MAX_EVENTS_PER_5_MINUTES": 2_500,
    "MAX_EVENTS_PER_PROJECT_PER_HOUR": 20_000,
    "MAX_EVENTS_PER_HOUR": 20_000,
    "MAX_RETENTION_PER_PROJECT_EVENT_COUNT": 10_000,
    "MAX_RETENTION_EVENT_COUNT": 10_000,
    "MAX_EVENT_AGE_DAYS": 30,
}
