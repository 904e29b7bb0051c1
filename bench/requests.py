"""What is asked of every variant: the four operations of the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.client import request
from bench.stage import ORDER, Customer


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of request."""

    name: str
    status: int
    make: Callable[[int, Customer], bytes]
    """Returns the request for a port and a customer."""


OPERATIONS: Final = {
    operation.name: operation
    for operation in (
        Operation("ping", 200, lambda port, _: request("GET", "/bench/ping", port)),
        Operation(
            "read", 200,
            lambda port, customer: request("GET", f"/bench/orders/{customer.order_id}", port),
        ),
        Operation(
            "create", 201,
            lambda port, customer: request(
                "POST", "/v1/orders", port, token=customer.token, body=ORDER
            ),
        ),
        Operation(
            "list", 200,
            lambda port, customer: request(
                "GET", "/v1/orders?limit=50", port, token=customer.token
            ),
        ),
    )
}  # fmt: skip
