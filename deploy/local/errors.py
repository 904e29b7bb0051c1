"""The one error of the local commands."""


class CannotRun(Exception):
    """Its message is one sentence for the person at the terminal: what is wrong and what to do.

    Raised wherever a local command cannot go on; caught in one place, which prints it and exits with 1.
    """
