"""A customer who is none: registers, logs in, orders, pays, is refunded and is erased, again and again.

`python -m sandbox.synthetic_journey` does so every SYNTHETIC_INTERVAL_SECONDS and shows its metrics on
SYNTHETIC_PORT; with `--once` it does so once, says how each step went and ends with 0 or 1: a smoke test.
Its requests carry SYNTHETIC_TOKEN, by which the service leaves them out of KPIs and HTTP metrics.

    settings.py    whom to ask, how often, how long to wait
    customer.py    one person's requests, and what a good answer to each is
    journey.py     the steps in their order, their time limits, and the clean-up
    outcomes.py    what became of the steps: metrics and log lines
    schedule.py    again and again, never two at once
    app.py         /metrics and probes
"""
