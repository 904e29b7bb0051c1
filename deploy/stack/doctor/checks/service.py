"""The service: is it ready, can somebody buy something, and does the worker do what follows from it?"""

from typing import Final

from deploy.stack.backends.app import App
from deploy.stack.backends.errors import WrongAnswer
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, NotChecked, listed
from deploy.stack.doctor.house import Deadline, House, Journey

READY: Final = "app is ready"
JOURNEY: Final = "a customer can register, order and pay"
WORKER: Final = "worker fulfils the order"
_BEHIND: Final = {
    "database": "postgres",
    "migrations": "migrations",
    "cache": "valkey",
    "broker": "valkey",
    "payment_provider": "payment-provider",
}
"""The service of the compose file that is behind each dependency of the app."""


def _ready(house: House, deadline: Deadline) -> str:
    def look() -> tuple[bool, list[str]] | None:
        answer = house.ask(App).readiness()
        return answer if answer[0] else None

    if deadline.wait(look) is not None:
        return "ready"
    _, failed = house.ask(App).readiness()
    services = dict.fromkeys(_BEHIND.get(name, "app") for name in failed or ["app"])
    raise Failed(
        f"not ready: {listed(failed) or 'no check says why'}",
        "; ".join(f"docker compose logs --tail=50 {name}" for name in services),
    )


def _dependencies(house: House, _: Deadline) -> str:
    if not house.access.operations_token:
        raise NotChecked("OPERATIONS_TOKEN not given")
    try:
        checks = house.ask(App).details()
    except WrongAnswer as error:
        raise Failed(
            str(error), "Give the OPERATIONS_TOKEN that the app was started with (.env)."
        ) from error
    down = {
        str(one["name"]): str(one.get("error") or "down") for one in checks if one["status"] != "up"
    }
    if down:
        raise Failed(
            "; ".join(f"{name}: {error}" for name, error in down.items()),
            "; ".join(f"docker compose ps {_BEHIND.get(name, 'app')}" for name in down),
        )
    return f"up: {listed(str(one['name']) for one in checks)}"


def _journey(house: House, _: Deadline) -> str:
    app = house.ask(App)
    try:
        customer = app.customer(synthetic=True)
        order = app.order(customer)
        payment, ids = app.pay(customer, order)
    except WrongAnswer as error:
        is_provider = "payment_provider" in str(error)
        name = "payment-provider" if is_provider else "app"
        raise Failed(str(error), f"docker compose logs --tail=50 {name}") from error
    house.journey = Journey(customer, order, str(payment["id"]), ids)
    if payment["status"] != "captured":
        raise Failed(
            f"the payment is {payment['status']}, not captured",
            "docker compose ps payment-provider; docker compose logs --tail=50 payment-provider",
        )
    if not ids.trace_id:
        raise Failed(
            "paid, but the answer has no X-Trace-ID",
            "Is OTEL_EXPORTER_OTLP_ENDPOINT set for the app? Without it there are no traces.",
        )
    marked = "" if house.access.synthetic_token else ", counted as a real one: no SYNTHETIC_TOKEN"
    return f"paid{marked}; trace {ids.trace_id}"


def _worker(house: House, deadline: Deadline) -> str:
    app, journey = house.ask(App), house.travelled()
    status = ""

    def look() -> bool:
        nonlocal status
        status = app.order_status(journey.customer, journey.order)
        return status == "fulfilled"

    if not deadline.wait(look):
        raise Failed(
            f"the order is {status}, not fulfilled",
            "docker compose ps worker valkey; docker compose logs --tail=50 worker",
        )
    return "fulfilled"


CHECKS: Final = (
    Check(READY, "app", _ready, needs=(App,)),
    Check("what the app stands on is up", "app", _dependencies, needs=(App,)),
    Check(JOURNEY, "app", _journey, needs=(App,), after=(READY,), seconds=30),
    Check(WORKER, "worker", _worker, needs=(App,), after=(JOURNEY,), seconds=20),
)
