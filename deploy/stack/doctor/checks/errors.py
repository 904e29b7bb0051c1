"""Bugsink: does it take an error, and can it be read there?"""

from typing import Final

from deploy.stack.backends.bugsink import Bugsink
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, NotChecked
from deploy.stack.doctor.house import Deadline, House

SENT: Final = "Bugsink takes an error"


def _sent(house: House, _: Deadline) -> str:
    bugsink = house.ask(Bugsink)
    if not bugsink.has_key:
        raise NotChecked("BUGSINK_KEY not given")
    house.event_id = bugsink.send_event("Test event of the stack's doctor", mark=house.mark)
    return f"event {house.event_id}"


def _read_back(house: House, deadline: Deadline) -> str:
    bugsink = house.ask(Bugsink)
    if not bugsink.can_be_read:
        raise NotChecked("BUGSINK_TOKEN and STACK_PASSWORD not given")
    event = deadline.wait(lambda: bugsink.event(house.event_id))
    if event is None:
        raise Failed(
            f"event {house.event_id} was accepted, and is not there",
            "Its worker digests what was accepted: docker compose logs --tail=50 bugsink",
        )
    return "the same event is shown"


CHECKS: Final = (
    Check(SENT, "bugsink", _sent, (Bugsink,)),
    Check("the error can be read there", "bugsink", _read_back, (Bugsink,), (SENT,), 20),
)
