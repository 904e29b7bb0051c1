"""What people do that nobody likes: wrong passwords, nonsense, haste, and trying doors."""

import secrets

from sandbox.customers.customer import CREATED, TOO_MANY, UNAUTHORIZED, Customer
from sandbox.customers.journeys import refund

GUESSES = 6
"""One more than an account takes."""
FLOOD = 25
"""More than one address may do in a minute, of anything that is limited."""
WRONG = "not the right password"


def mistype_the_password(customer: Customer) -> None:
    """Log in with a typing error, then without."""
    customer.sign_in()
    customer.log_in(WRONG)
    customer.log_in()


def forget_the_password(customer: Customer) -> None:
    """Guess the own password until the account is locked; then even the right one does not help."""
    customer.sign_in()
    customer.account.token = ""
    form = {"username": customer.account.email, "password": WRONG}
    for _ in range(GUESSES):
        answer = customer.ask("POST", "/v1/auth/token", (UNAUTHORIZED, TOO_MANY), form=form)
        if answer.status == TOO_MANY:
            customer.rest(answer.retry_after)
            return


def come_back_to_an_old_tab(customer: Customer) -> None:
    """Log out on one device and go on with the same session on another."""
    customer.sign_in()
    old = {"Authorization": f"Bearer {customer.account.token}"}
    customer.signed("POST", "/v1/auth/logout", (204,))
    customer.account.token = ""
    customer.ask("GET", "/v1/users/me", (UNAUTHORIZED,), headers=old)


def repeat_with_a_difference(customer: Customer) -> None:
    """Use an idempotency key for two different orders."""
    key = secrets.token_hex(12)
    customer.order(key=key)
    other = {"currency": "EUR", "lines": [{"sku": "TEA", "quantity": 7, "unit_amount": 123}]}
    customer.signed("POST", "/v1/orders", (422,), json=other, key=key)


def pay_twice(customer: Customer) -> None:
    """Pay for what is paid for, and want more back than there is."""
    order = customer.order()
    payment = customer.pay(order, card="tok_ok")
    customer.pay(order, card="tok_ok", expected=(409,))
    if payment["status"] == "captured":
        refund(customer, payment, {"amount": payment["amount"] + 1}, 422)


def ask_for_nonsense(customer: Customer) -> None:
    """Follow dead links, send forms half empty, come without a token or with one that is none."""
    nobody = "00000000-0000-4000-8000-000000000000"
    forged = {"Authorization": "Bearer not.a.token"}
    customer.ask("GET", "/v1/users/me", (UNAUTHORIZED,))
    customer.ask("GET", "/v1/users/me", (UNAUTHORIZED,), headers=forged)
    customer.signed("GET", f"/v1/orders/{nobody}", (404,), name="/v1/orders/{order_id}")
    customer.signed("POST", "/v1/orders", (422,), json={"currency": "EUR", "lines": []})
    customer.ask("GET", "/basket.php", (404,), name="unmatched")
    customer.ask("DELETE", "/v1/orders", (405,))


def try_a_door(customer: Customer) -> None:
    """Ask for what is the operators'. Without an operations token that is not there at all."""
    customer.ask("GET", "/health/detailed", (UNAUTHORIZED, 404))


def guess_strangers_passwords(customer: Customer) -> None:
    """Try one password with many addresses, until the limit ends it."""
    for number in range(FLOOD):
        form = {"username": f"stranger-{number}@customers.example", "password": WRONG}
        answer = customer.ask("POST", "/v1/auth/token", (UNAUTHORIZED, TOO_MANY), form=form)
        if answer.status == TOO_MANY:
            return


def register_by_machine(customer: Customer) -> None:
    """Send empty registrations, until the limit ends it."""
    for _ in range(FLOOD):
        answer = customer.ask("POST", "/v1/users", (CREATED, 422, TOO_MANY), json={})
        if answer.status == TOO_MANY:
            return
