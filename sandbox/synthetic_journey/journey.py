"""One journey: the steps in their order, each within its time, and the clean-up whatever became of them.

A journey is one trace and has one request id, both of which its requests carry: from the line of a failed
step the way leads to all that the service did and said about it.
"""

import time
from asyncio import timeout
from collections.abc import Awaitable, Callable

import httpx2
from loguru import logger

from app.observability.context import RequestContext, bind_context, new_request_id
from app.observability.tracing import business_span, fail_span, trace_http_client
from sandbox.synthetic_journey.customer import Customer, StepFailed
from sandbox.synthetic_journey.outcomes import (
    Outcome,
    Step,
    StepOutcome,
    record_journey,
    record_step,
)
from sandbox.synthetic_journey.settings import JourneySettings

OnStep = Callable[[StepOutcome], object]


async def run_journey(
    settings: JourneySettings,
    *,
    on_step: OnStep = lambda _: None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Outcome:
    """Make one journey and record it; return how it went. Raises nothing but a cancellation.

    Args:
        settings: Whom to ask, and how long to wait.
        on_step: Called with each step that was tried, as soon as it has ended.
        transport: Instead of the network, for an application in this process.
    """
    request_id = new_request_id()
    headers = {"X-Request-ID": request_id, "User-Agent": f"synthetic/{settings.service_version}"}
    if settings.synthetic_token is not None:
        headers["X-Synthetic-Token"] = settings.synthetic_token.get_secret_value()
    # A client of its own for each journey: a new customer has no open connection either.
    client = httpx2.AsyncClient(
        base_url=settings.synthetic_api_url,
        headers=headers,
        timeout=settings.synthetic_step_timeout_seconds,
        transport=transport,
    )
    trace_http_client(client)
    context = RequestContext(request_id, route="synthetic.journey", synthetic=True)
    with bind_context(context), business_span("synthetic.journey"):
        async with client:
            outcome = await _Journey(client, settings, on_step).make()
        if outcome.failed:
            fail_span(StepFailed(outcome.failed.failure))
        record_journey(outcome)
    return outcome


class _Journey:
    def __init__(
        self, client: httpx2.AsyncClient, settings: JourneySettings, on_step: OnStep
    ) -> None:
        self._customer = Customer(client, settings)
        self._settings = settings
        self._on_step = on_step
        self._steps: list[StepOutcome] = []

    async def make(self) -> Outcome:
        """Take the steps until one fails, then clean up."""
        started = time.monotonic()
        customer = self._customer
        steps: tuple[tuple[Step, Callable[[], Awaitable[None]]], ...] = (
            ("register", customer.register),
            ("token", customer.token),
            ("order", customer.order),
            ("pay", customer.pay),
            ("confirm", customer.confirm),
            ("refund", customer.refund),
        )
        for name, act in steps:
            left = self._settings.synthetic_timeout_seconds - (time.monotonic() - started)
            if not await self._take(name, act, left):
                break
        await self._clean_up()
        return Outcome(tuple(self._steps), time.monotonic() - started)

    async def _clean_up(self) -> None:
        is_registered = not self._steps[0].failure
        if is_registered:
            await self._take("erase", self._customer.erase)
            return
        # It may exist all the same, if only the answer was lost. If not, that is no second failure.
        try:
            async with timeout(self._settings.synthetic_step_timeout_seconds):
                await self._customer.erase()
        except (StepFailed, TimeoutError):
            return

    async def _take(
        self, name: Step, act: Callable[[], Awaitable[None]], left: float = float("inf")
    ) -> bool:
        """Take one step, within its time and what is left of the journey's; return whether it went well."""
        limit = self._settings.synthetic_step_timeout_seconds
        started = time.monotonic()
        failure = ""
        try:
            with business_span(f"synthetic.{name}"):
                async with timeout(min(limit, left)):
                    await act()
        except TimeoutError:
            whole = self._settings.synthetic_timeout_seconds
            failure = (
                f"It took longer than {limit:g} s."
                if limit <= left
                else f"The journey as a whole took longer than {whole:g} s."
            )
        except StepFailed as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - a bug of ours is a failed step, and not the end
            logger.bind(type="synthetic", step=name).opt(exception=error).error(
                "Synthetic step is broken"
            )
            failure = f"The step itself is broken: {type(error).__name__}."
        outcome = StepOutcome(name, time.monotonic() - started, failure)
        self._steps.append(outcome)
        record_step(outcome)
        self._on_step(outcome)
        return not failure
