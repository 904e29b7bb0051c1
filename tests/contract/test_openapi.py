"""The OpenAPI document is true: whatever is sent, the API answers as documented, and never with a 5xx.

schemathesis makes valid and invalid requests for every operation. So that they get beyond "not found",
some are pointed at an order and a payment that exist.
"""

import contextlib
import secrets
import zlib
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.service import OPERATIONS_TOKEN, PASSWORD, RunningProcess

ENDS_THE_SESSION = {("POST", "/v1/auth/logout"), ("DELETE", "/v1/users/me")}


def _person(url: str) -> dict[str, str]:
    email = f"{secrets.token_hex(8)}@example.com"
    body = {"email": email, "password": PASSWORD, "name": "Ada"}
    httpx2.post(f"{url}/v1/users", json=body).raise_for_status()
    answer = httpx2.post(f"{url}/v1/auth/token", data={"username": email, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}


@pytest.fixture(scope="module")
def person(api: RunningProcess) -> dict[str, str]:
    """The authorisation of somebody who has ordered and paid."""
    return _person(api.url)


@pytest.fixture(scope="module")
def existing(api: RunningProcess, person: dict[str, str]) -> dict[str, str]:
    """Ids of a paid order's payment, and of an order that can be paid."""
    orders = []
    for _ in range(2):
        lines = [{"sku": "TEA", "quantity": 1, "unit_amount": 100_000}]
        body = {"currency": "EUR", "lines": lines}
        answer = httpx2.post(f"{api.url}/v1/orders", json=body, headers=person)
        orders.append(answer.raise_for_status().json()["id"])
    paid = {"order_id": orders[0], "payment_token": "tok_ok"}
    payment = httpx2.post(f"{api.url}/v1/payments", json=paid, headers=person)
    return {"order_id": orders[1], "payment_id": payment.raise_for_status().json()["id"]}


@pytest.fixture(scope="module")
def api_schema(api: RunningProcess) -> Any:
    """The document as the running API serves it."""
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


OPERATIONS = (
    ("POST", "/v1/users"),
    ("POST", "/v1/auth/token"),
    ("POST", "/v1/auth/logout"),
    ("GET", "/v1/users/me"),
    ("DELETE", "/v1/users/me"),
    ("GET", "/v1/users/me/export"),
    ("POST", "/v1/orders"),
    ("GET", "/v1/orders"),
    ("GET", "/v1/orders/{order_id}"),
    ("POST", "/v1/orders/{order_id}/cancel"),
    ("POST", "/v1/payments"),
    ("GET", "/v1/payments/{payment_id}"),
    ("POST", "/v1/payments/{payment_id}/refund"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/startup"),
    ("GET", "/health/detailed"),
    ("GET", "/slo"),
    ("GET", "/debug/profile"),
    ("GET", "/debug/memory"),
    ("GET", "/debug/tasks"),
)


def test_the_document_has_the_operations_that_were_agreed_on(api: RunningProcess) -> None:
    paths = httpx2.get(f"{api.url}/openapi.json").raise_for_status().json()["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_documented_and_none_is_a_server_error(
    method: str,
    path: str,
    mode: GenerationMode,
    api: RunningProcess,
    api_schema: Any,
    person: dict[str, str],
    existing: dict[str, str],
) -> None:
    operation = api_schema[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=8 if (method, path) in ENDS_THE_SESSION else 40,
        derandomize=True,  # the same requests in every run: a failure is a change, not luck
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Case[Any]) -> None:
        _aim(case, existing)
        headers = person
        if (method, path) in ENDS_THE_SESSION:
            headers = _person(api.url)
        if path == "/health/detailed":
            headers = {"Authorization": f"Bearer {OPERATIONS_TOKEN}"}
        response = case.call(headers=headers)
        case.validate_response(response, excluded_checks=_EXCLUDED)

    with contextlib.suppress(Unsatisfiable):  # such as wrong input for an operation that takes none
        ask()


_EXCLUDED = [
    # Every call is authorised here; that it must be is tests/integration/test_authentication.py's.
    ignored_auth,
    # A generated body may be refused for a reason that a schema cannot express: the sum of the
    # lines, an order that was paid, an address that is taken.
    positive_data_acceptance,
]


def _aim(case: Case[Any], existing: dict[str, str]) -> None:
    """Point about half of the cases that name an order or a payment at one that exists."""
    for name, value in existing.items():
        if name in (case.path_parameters or {}) and _one_in_two(case.path_parameters):
            case.path_parameters[name] = value
    if isinstance(case.body, dict) and "order_id" in case.body and _one_in_two(case.body):
        case.body["order_id"] = existing["order_id"]


def _one_in_two(value: object) -> bool:
    return zlib.crc32(repr(value).encode()) % 2 == 0
