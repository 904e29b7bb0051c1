"""The doctor of the stack: looks at every component as a user of it would, and says what to do.

    python -m deploy.stack.doctor [--json]

Inside of the stack (`make doctor`) it knows the addresses; elsewhere the environment gives them, with the
variables of deploy/stack/backends/addresses.py. A backend that was not given is "not checked", never ok.

    checks/         what is looked at, by component
    examination.py  does it: at once where nothing depends on it, each within its time
    house.py        the clients, and what one check leaves to the next
    findings.py     what comes out
    report.py       how it is told

It makes one real journey (marked synthetic where SYNTHETIC_TOKEN is given) and follows it through every
signal, raises one test alert that reaches nobody's telephone, and sends one test error. It leaves nothing
else behind, and must never print a secret.
"""
