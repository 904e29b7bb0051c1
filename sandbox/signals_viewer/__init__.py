"""Traces and errors on one page, for whoever develops on a machine without Jaeger and Sentry.

`python -m sandbox.signals_viewer` listens on VIEWER_PORT of the loopback interface and stands in for both:
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 and SENTRY_DSN=http://local@127.0.0.1:4318/1 lead here.
It is a development viewer: what it keeps is in memory, bounded (see store.py) and gone when it ends. Nobody
is asked for a password, which is why it listens nowhere else.

    settings.py    which port
    signals.py     what a span and an error report are, here
    otlp.py        spans out of an OTLP export
    envelopes.py   error reports out of a Sentry envelope
    intake.py      the two addresses that take them
    store.py       the newest of both, and no more than fits
    waterfall.py   the spans of a trace in the order in which one reads them
    documents.py   both as JSON, for scripts
    markup.py, layout.py, overview.py, trace_page.py, error_page.py    both as pages, for people
    app.py         the application

Must never trace or report itself: it would watch nothing but itself.
"""

from sandbox.signals_viewer.app import create_viewer
from sandbox.signals_viewer.settings import ViewerSettings

__all__ = ["ViewerSettings", "create_viewer"]
