"""What can go wrong between us and a backend; each message is a sentence for a person, without secrets."""


class BackendError(Exception):
    """A backend did not do what it was asked."""


class NoAnswer(BackendError):
    """Nobody listens there, the name is not known, or it took too long."""


class UnknownHost(NoAnswer):
    """The name of the host leads nowhere: whoever asks is not where that name is known."""


class Denied(BackendError):
    """It wants another login than the one that was given."""


class WrongAnswer(BackendError):
    """It answered something else than what it should have.

    Attributes:
        status: The status of the answer; 200 where the body is what is wrong.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
