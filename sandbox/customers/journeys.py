"""What people do in a shop: look around, buy, think better of it, come back, leave for good."""

import secrets
from typing import Any

from sandbox.customers.customer import CREATED, Customer

PAGES = 3
SECOND_TRY = 0.7
"""Of those whose card is declined: they have another one."""
UNPROCESSABLE = 422


def browse(customer: Customer) -> None:
    """Look at the own profile, at the orders page by page, and at one of them."""
    customer.signed("GET", "/v1/users/me", (200,))
    cursor: str | None = None
    for _ in range(PAGES):
        page = customer.list_orders(limit=2, cursor=cursor)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if page["items"]:
        customer.look_at("orders", page["items"][0])


def buy(customer: Customer) -> None:
    """Order and pay; a card that is declined is followed by another one, or by giving up."""
    customer.list_orders()
    order = customer.order()
    payment = _pay(customer, order)
    if payment.get("status") in {"captured", "pending"}:
        customer.look_at("payments", payment)
    elif customer.rng.random() < SECOND_TRY:
        customer.pay(order, card="tok_ok")


def buy_on_a_bad_line(customer: Customer) -> None:
    """Do everything twice, since answers get lost; the keys see to it that it happens once."""
    order_key, payment_key = secrets.token_hex(12), secrets.token_hex(12)
    basket = customer.wares.order()
    for _ in range(2):
        order = customer.order(key=order_key, body=basket)
    for _ in range(2):
        customer.pay(order, card="tok_ok", key=payment_key)


def fill_a_basket(customer: Customer) -> None:
    """Order and never pay."""
    customer.list_orders()
    customer.order()


def change_ones_mind(customer: Customer) -> None:
    """Order and cancel."""
    order = customer.order()
    customer.signed(
        "POST", f"/v1/orders/{order['id']}/cancel", (200,), name="/v1/orders/{order_id}/cancel"
    )


def tidy_up(customer: Customer) -> None:
    """Cancel what was ordered and never paid for."""
    for order in customer.list_orders(limit=20)["items"]:
        if order["status"] == "pending":
            # A payment may be under way: then it cannot be cancelled.
            path = f"/v1/orders/{order['id']}/cancel"
            customer.signed("POST", path, (200, 409), name="/v1/orders/{order_id}/cancel")
            return


def send_back(customer: Customer) -> None:
    """Buy, and want the money back: all of it, or first a part."""
    order = customer.order()
    payment = customer.pay(order, card="tok_ok")
    if payment["status"] != "captured":
        return
    if payment["amount"] > 1 and customer.rng.random() < 1 / 4:
        refund(customer, payment, {"amount": payment["amount"] // 2})
    refund(customer, payment, {})


def refund(
    customer: Customer, payment: dict[str, Any], body: dict[str, int], expected: int = CREATED
) -> None:
    """Ask for money back; a refusal may be what is expected."""
    path = f"/v1/payments/{payment['id']}/refund"
    name = "/v1/payments/{payment_id}/refund"
    customer.signed("POST", path, (expected,), name=name, json=body)


def sign_up_and_leave(customer: Customer) -> None:
    """Register, if one has no account, and go no further."""
    if not customer.account.is_registered:
        customer.register()


def take_ones_data(customer: Customer) -> None:
    """Export everything."""
    customer.signed("GET", "/v1/users/me/export", (200,))


def log_out(customer: Customer) -> None:
    """Log out."""
    customer.signed("POST", "/v1/auth/logout", (204,))
    customer.account.token = ""


def close_the_account(customer: Customer) -> None:
    """Have everything erased; whoever comes next under this address is somebody new."""
    customer.signed("DELETE", "/v1/users/me", (204,))
    customer.account.token = ""
    customer.account.is_registered = False


def open_the_app(customer: Customer) -> None:
    """Start the app on the telephone: it looks whether the shop is there, and who one is."""
    customer.ask("GET", "/health", (200,))
    customer.signed("GET", "/v1/users/me", (200,))
    customer.list_orders(limit=1)


def _pay(customer: Customer, order: dict[str, Any]) -> dict[str, Any]:
    # A token that the provider does not know is refused; it may come from a page that is out of date.
    return customer.pay(order, expected=(CREATED, UNPROCESSABLE))
