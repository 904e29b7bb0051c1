"""Every notification of an alert on one page, and the runbooks: no Slack and no PagerDuty needed.

`python -m sandbox.notifications` listens on NOTIFICATIONS_PORT and stands in for the services that are told
of alerts: Alertmanager's webhook, Slack's incoming webhooks, PagerDuty's Events API v2. Nothing leaves the
machine. What arrives is kept on disk, the newest of it (see store.py), so that a restart loses no evidence.
Nobody is asked for a password: it listens on the loopback interface unless NOTIFICATIONS_HOST says otherwise.

    settings.py    which address, which file, which runbooks
    shown.py       what a notification is for a reader
    webhook.py, slack.py, pagerduty.py    each channel: what it sends, and what its reader would see
    channels.py    the three, by name
    intake.py      the addresses that take them
    store.py       the newest, in SQLite, and no more than fits
    documents.py   notifications as JSON, for scripts and tests
    runbooks.py    docs/runbooks as HTML
    layout.py, overview.py    the pages, for people
    app.py         the application

Must never send anything, and never refuse what the real services accept from Alertmanager.
"""

from sandbox.notifications.app import create_notifications
from sandbox.notifications.settings import NotificationsSettings

__all__ = ["NotificationsSettings", "create_notifications"]
