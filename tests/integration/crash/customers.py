"""Customers who never give up: each call is repeated with its idempotency key until it is answered.

They are as hostile as an honest client can be: they hang up on slow answers and ask again at once, click
twice with two keys, repeat what was answered already, and refund in parts. What they were told is kept,
so that it can be compared with what became true.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2

from tests.service import ServiceClient

Kind = Literal["order", "payment", "refund"]

TOKENS = {
    "tok_ok": 10,
    "tok_slow": 4,
    "tok_timeout": 2,
    "tok_error": 1,
    "tok_declined": 2,
    "tok_insufficient_funds": 1,
    "tok_expired": 1,
}
PATIENCE_SECONDS = (0.05, 0.2, 10.0)
ANSWER_WITHIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said last about one key: status below 500."""

    kind: Kind
    key: str
    status: int
    body: dict[str, Any]


@dataclass(slots=True)
class Diary:
    """What all customers were told, what of it cannot be, and how often they had to ask again."""

    answers: list[Answer] = field(default_factory=list)
    repeated: int = 0
    contradictions: list[str] = field(default_factory=list)


class Customer:
    """One person who orders, pays and sometimes wants the money back."""

    def __init__(self, person: ServiceClient, diary: Diary, rng: random.Random) -> None:
        self._person = person
        self._diary = diary
        self._rng = rng
        self._calls: list[tuple[str, dict[str, Any], Answer]] = []

    async def shop(self, *, rounds: int, is_over: Callable[[], bool]) -> None:
        """Buy at least `rounds` times and until it is over."""
        while rounds > 0 or not is_over():
            await self._buy()
            rounds -= 1

    async def _buy(self) -> None:
        self._calls.clear()
        lines = [{"sku": "TEA", "quantity": 1, "unit_amount": self._rng.randint(2, 90_000)}]
        order = await self._insist("order", "/v1/orders", {"currency": "EUR", "lines": lines})
        token = self._rng.choices(list(TOKENS), list(TOKENS.values()))[0]
        body = {"order_id": order.body["id"], "payment_token": token}
        clicks = 2 if self._rng.random() < 0.2 else 1
        paid = await asyncio.gather(
            *(
                self._insist("payment", "/v1/payments", body, may_be_refused=clicks > 1)
                for _ in range(clicks)
            )
        )
        for answer in paid:
            if answer.body.get("status") == "captured":
                await self._refund(answer.body)
        await self._ask_again(*self._rng.choice(self._calls))

    async def _refund(self, payment: dict[str, Any]) -> None:
        part = self._rng.randint(1, payment["amount"] - 1)
        wanted = self._rng.choice(([], [], [None], [part], [part, None], [part, part]))
        path = f"/v1/payments/{payment['id']}/refund"
        for amount in wanted:
            is_too_much = wanted == [part, part]  # perhaps, and then it is to be refused
            await self._insist("refund", path, {"amount": amount}, may_be_refused=is_too_much)

    async def _insist(
        self, kind: Kind, path: str, body: dict[str, Any], *, may_be_refused: bool = False
    ) -> Answer:
        key = secrets.token_hex(8)
        async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
            answer = await self._ask(kind, path, body, key)
            self._diary.answers.append(answer)
            if answer.status != 201 and not may_be_refused:
                self._diary.contradictions.append(f"nothing stood against {body}, yet: {answer}")
            self._calls.append((path, body, answer))
        return answer

    async def _ask_again(self, path: str, body: dict[str, Any], first: Answer) -> None:
        if first.status == 201:
            async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
                again = await self._ask(first.kind, path, body, first.key)
            if not _may_follow(first, again):
                self._diary.contradictions.append(f"first {first}, then {again}")

    async def _ask(self, kind: Kind, path: str, body: dict[str, Any], key: str) -> Answer:
        while True:
            try:
                async with asyncio.timeout(self._rng.choice(PATIENCE_SECONDS)):
                    response = await self._person.post(path, body, key=key)
            except (httpx2.TransportError, TimeoutError):
                pass
            else:
                if response.status_code < 500:
                    return Answer(kind, key, response.status_code, response.json())
            self._diary.repeated += 1
            await asyncio.sleep(self._rng.uniform(0.005, 0.1))


def _may_follow(first: Answer, again: Answer) -> bool:
    """Whether one key may be answered so: what was final stays, and what was pending may be settled."""
    if first.kind != "order" and first.body["status"] == "pending":
        return again.status == first.status and again.body["id"] == first.body["id"]
    return again == first
