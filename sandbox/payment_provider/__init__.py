"""A payment provider to develop and test against: charges, refunds, cancellations and a durable ledger.

`python -m sandbox.payment_provider` starts it on PROVIDER_PORT. It behaves as a real one does where that
matters to a client: an idempotency key takes effect once, an answer may be late or lost although the
charge was made, and the ledger tells afterwards what is true. How badly it behaves is set by the payment
token of a charge, and for all requests by PUT /v1/behaviour.

    settings.py    which address, which file, which behaviour at the start
    schemas.py     what goes in and out
    ledger.py      what is true: every charge, refund and cancellation, once, on disk
    behaviour.py   what goes wrong, on purpose
    processing.py  one request: delay, fault, ledger, answer
    routes.py, problems.py, masking.py, app.py    the HTTP side
"""

from sandbox.payment_provider.app import create_provider
from sandbox.payment_provider.settings import ProviderSettings

__all__ = ["ProviderSettings", "create_provider"]
