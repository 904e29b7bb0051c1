"""What pretends to be the outside world: programs of their own, which the service never imports.

A package here may use the pattern library (`app.observability`), so that a trace shows both sides, and
nothing else of `app`: it knows the service only over HTTP, as the real outside world does.
"""
