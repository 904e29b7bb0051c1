"""Everything that a client can do and everything that can go wrong, with a secret in every place."""

import base64
import json
import secrets
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.contract.canary.canaries import Aviary
from tests.contract.canary.clients import Client
from tests.contract.canary.faults import ANSWERED_500, FAULTS

EMAIL, NAME, SKU, ANSWER = "users.email", "users.name", "order_lines.sku", "idempotency_keys.body"
CUTS = (4096, 8192, 32768)
"""Characters after which signals cut: messages of error reports, attributes of spans, fields of lines."""
RECEIPT_FAULT, RECEIPT_LEAK = 66_601, 66_602
"""Amounts of payments whose receipt cannot be written."""


class Person:
    """Somebody with an account, whose every secret is a canary."""

    def __init__(self, client: Client, who: str, *, erased: bool = False) -> None:
        new = client.aviary.new
        kept = () if erased else (EMAIL,)
        self.client = client
        self.email = new("tagged e-mail", f"e-mail address of {who}", *kept).lower()
        self.password = new("word", f"password of {who}")
        self.name = new("word", f"name of {who}", *(() if erased else (NAME,)))
        self.headers: dict[str, str] = {}

    def register(self, expect: int = 201, *, noise: bool = False) -> None:
        body = {"email": self.email.upper(), "password": self.password, "name": self.name}
        self.client.ask("POST", "/v1/users", json_body=body, expect=expect, noise=noise)

    def log_in(self, expect: int = 200, *, noise: bool = False, **form: str) -> None:
        answer = self.client.ask(
            "POST", "/v1/auth/token", form=self.form() | form, expect=expect, noise=noise
        )
        if answer.status == 200:
            token = answer.json()["access_token"]
            self.client.aviary.keep("JWT", "access token", token, core=token.rpartition(".")[2])
            self.headers = {"Authorization": f"Bearer {token}"}

    def form(self) -> dict[str, str]:
        return {"username": self.email, "password": self.password, "grant_type": "password"}

    def ask(self, method: str, target: str, *, expect: int, **given: Any) -> Any:
        """Ask as this person; return the JSON of the answer."""
        given["headers"] = self.headers | given.get("headers", {})
        answer = self.client.ask(method, target, expect=expect, **given)
        return answer.json() if answer.body else None

    def order(self, amount: int = 2500, *, sku: str = "TEA", **given: Any) -> str:
        lines = [{"sku": sku, "quantity": 1, "unit_amount": amount}]
        body = {"currency": "EUR", "lines": lines}
        placed: str = self.ask("POST", "/v1/orders", json_body=body, expect=201, **given)["id"]
        return placed

    def pay(self, order_id: str, token: str = "tok_ok", expect: int = 201, **given: Any) -> Any:
        body = {"order_id": order_id, "payment_token": token}
        return self.ask("POST", "/v1/payments", json_body=body, expect=expect, **given)


def recognisable(aviary: Aviary, place: str) -> str:
    """Return a text that has one secret of each kind in it, in the ways people write them."""

    def new(kind: str) -> str:
        return aviary.new(kind, place)

    headers = {"Authorization": f"Bearer {new('opaque token')}", "Cookie": f"s={new('word')}"}
    return (
        f"log-in of {new('e-mail')} ({new('telephone number')}) failed with {headers}, "
        f"password={new('word')!r} card {new('card with blanks')} or {new('card')}, "
        f"{new('IBAN')} / {new('IBAN with blanks')}, {json.dumps({'access_token': new('word')})} "
        f"{json.dumps(json.dumps({'cvv': new('word'), 'mail': new('e-mail')}))} {new('JWT')} "
        f"Basic {new('Basic')} {new('payment token')} {quote(new('tagged e-mail'))} "
        f"{quote(quote(new('card with blanks')))} {_full_width(new('card'))} "
        f"{_escaped(new('e-mail'))} "
        f"postgresql://u:{new('word')}@db:5432/shop https://h/cb?code={new('word')}#{new('word')}"
    )


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(one):04x}" for one in text)


def _full_width(text: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) for one in text)


def said(aviary: Aviary, name: str, known: str = "") -> dict[str, str]:
    """Return what the fault `name` is to say."""
    return {
        "text": recognisable(aviary, f"fault {name}"),
        "word": aviary.new("word", f"fault {name}"),
        "known": known,
    }


def faults(aviary: Aviary, known_email: str, leaks: list[str]) -> dict[str, Any]:
    """Return what CANARY_FAULTS is to hold: every fault behind an id of its own."""
    ordered: dict[str, Any] = {
        str(uuid.uuid4()): {"name": name, "said": said(aviary, name, known_email)}
        for name in FAULTS
        if name not in {"leak", "raise_long"}
    }
    ordered[str(uuid.uuid4())] = {"name": "leak", "said": {"leaks": json.dumps(leaks)}}
    for limit in CUTS:
        long = f" for {aviary.new('e-mail', f'fault raise_long, {limit}')}, and more" + "y" * 600
        # The cut is at several places behind the @, since half an address is none.
        for before in range(-38, -26, 3):
            text = {"text": long, "length": str(limit + before)}
            ordered[str(uuid.uuid4())] = {"name": "raise_long", "said": text}
    ordered[f"receipt of {RECEIPT_FAULT}"] = {"text": recognisable(aviary, "job")}
    ordered[f"receipt of {RECEIPT_LEAK}"] = {"text": "", "leaks": json.dumps(leaks)}
    return ordered


# The journey ------------------------------------------------------------------------------------------


def walk(client: Client, *, noise: bool = True) -> Person:
    """Do everything that works: register, log in, order, pay, refund, export, log out, be erased."""
    new = client.aviary.new
    ada = Person(client, f"Ada at the {client.name}")
    ada.register(noise=noise)
    ada.log_in(
        noise=noise, client_secret=new("opaque token", "client_secret"), scope=new("word", "scope")
    )
    key = new("e-mail", "Idempotency-Key of an order")
    placed = ada.order(
        sku=new("card", "article number", SKU, ANSWER),
        headers={"Idempotency-Key": key},
        noise=noise,
    )
    paid = ada.pay(
        placed,
        headers={"Idempotency-Key": new("card with dashes", "Idempotency-Key of a payment")},
        noise=noise,
    )
    ada.ask("GET", f"/v1/orders/{placed}", expect=200, noise=noise)
    ada.ask("GET", "/v1/orders?limit=5", expect=200, noise=noise)
    ada.ask("GET", f"/v1/payments/{paid['id']}", expect=200)
    ada.ask(
        "POST",
        f"/v1/payments/{paid['id']}/refund",
        json_body={"amount": 100},
        headers={"Idempotency-Key": new("opaque token", "Idempotency-Key of a refund")},
        expect=201,
        noise=noise,
    )
    ada.ask("GET", "/v1/users/me", expect=200, noise=noise)
    ada.ask("GET", "/v1/users/me/export", expect=200, noise=noise)
    gone = Person(client, f"somebody erased at the {client.name}", erased=True)
    gone.register()
    gone.log_in()
    gone.order()
    gone.ask("DELETE", "/v1/users/me", expect=204, noise=noise)
    gone.log_in(401)
    return ada


def stumble(client: Client, ada: Person) -> None:
    """Make every mistake that a client can make."""
    new = client.aviary.new
    ada.register(409, noise=True)  # the address is taken
    _refused_input(client, ada)
    _refused_callers(client, ada)
    _unknown_paths(client, ada)
    # Idempotency and money
    key = {"Idempotency-Key": new("IBAN", "Idempotency-Key that is used twice")}
    first, second = (
        ada.order(headers=key),
        {"currency": "USD", "lines": [{"sku": "X", "quantity": 1, "unit_amount": 5}]},
    )
    ada.ask("POST", "/v1/orders", json_body=second, headers=key, expect=422)
    ada.ask(
        "GET",
        "/v1/orders",
        expect=200,
        headers={"Idempotency-Key": new("card with blanks", "a key with blanks")},
    )
    for token in ("tok_declined", "tok_insufficient_funds"):
        assert ada.pay(first, token)["status"] == "declined"
    ada.pay(first, new("payment token", "payment_token"), 422)
    ada.pay(first, new("card", "payment_token"), 422)
    ada.pay(str(uuid.uuid4()), expect=404)
    ada.pay(ada.order(), "tok_error")
    ada.pay(
        ada.order(), "tok_timeout", headers={"Idempotency-Key": new("JWT", "key of a time-out")}
    )
    # The account is locked, and then ended
    for _ in range(6):
        unknown = {
            "username": new("e-mail", "unknown user"),
            "password": new("word", "wrong password"),
        }
        client.ask("POST", "/v1/auth/token", form=unknown, expect=401)
    bob = Person(client, "Bob")
    bob.register()
    for attempt in range(7):
        wrong = new("word", "wrong password of Bob")
        bob.log_in(401 if attempt < 5 else 429, password=wrong, noise=attempt == 6)
    bob.log_in(429)


def _refused_input(client: Client, ada: Person) -> None:
    new = client.aviary.new
    password = new("word", "password of a refused registration")
    good = {"email": new("e-mail", "refused registration"), "password": password, "name": "N"}
    for changed in (
        {"email": f"not an address {new('card with blanks', 'field email')}"},
        {"email": new("e-mail", "field email").replace("@", "\uff20")},
        {"name": new("card", "field name") + "\u0000"},
        {"name": new("word", "field name") * 20},
        {
            "password": new("word", "field password")[:3]
            + "\ud800"
            + new("word", "half a character")
        },
        {"password": {"nested": new("word", "field password")}},
        {"iban": new("IBAN", "unknown field"), "cvv": new("word", "unknown field")},
        {new("e-mail", "name of a field"): {"card": [new("card", "nested unknown field")]}},
        {"source": new("word", "field source")},
    ):
        client.ask("POST", "/v1/users", json_body=good | changed, expect=422, noise=True)
    text = recognisable(client.aviary, "body that is no JSON")
    client.ask("POST", "/v1/users", body='{"password": "' + text, expect=422)
    client.ask("POST", "/v1/users", body=text, expect=422, headers={"Content-Type": "text/plain"})
    client.ask("POST", "/v1/users", body=b"\xff\xfe" + text.encode("utf-16"), expect=422)
    client.ask("POST", "/v1/users", body=text * 100, expect=413)
    mail = new("e-mail", "multipart body")
    part = f'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\n{mail}\r\n--b--\r\n'
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    client.ask("POST", "/v1/users", body=part, expect=422, headers=multipart)
    client.ask("POST", "/v1/auth/token", body=part, expect=422, headers=multipart)
    client.ask(
        "POST", "/v1/auth/token", form={"client_secret": new("word", "client_secret")}, expect=422
    )
    strange = {"grant_type": new("e-mail", "grant_type"), "username": "a", "password": "b"}
    client.ask("POST", "/v1/auth/token", form=strange, expect=422)
    for sku in (new("e-mail", "field sku"), new("card with blanks", "field sku")):
        lines = [{"sku": sku, "quantity": 1, "unit_amount": 5}]
        ada.ask("POST", "/v1/orders", json_body={"currency": "EUR", "lines": lines}, expect=422)
    currency = {"currency": new("word", "field currency"), "lines": []}
    ada.ask("POST", "/v1/orders", json_body=currency, expect=422)
    ada.ask("GET", f"/v1/orders?cursor={quote(new('e-mail', 'cursor'))}", expect=422)
    cursor = base64.urlsafe_b64encode(new("word", "cursor").encode()).decode()
    ada.ask("GET", f"/v1/orders?cursor={cursor}&limit={new('word', 'limit')}", expect=422)


def _refused_callers(client: Client, ada: Person) -> None:
    new, forged = client.aviary.new, ada.headers["Authorization"]
    for authorization in (
        f"Bearer {new('JWT', 'forged access token')}",
        f"Bearer {new('opaque token', 'Authorization')}",
        f"Bearer {forged.rpartition('.')[0].removeprefix('Bearer ')}.{new('word', 'forged signature')}",
        f"Basic {new('Basic', 'Authorization')}",
        f"Digest username={new('e-mail', 'Authorization')}, response={new('word', 'Authorization')}",
        new("opaque token", "Authorization without a scheme"),
    ):
        sent = {"Authorization": authorization}
        client.ask("GET", "/v1/users/me", headers=sent, expect=401, noise=True)
        client.ask("GET", "/health/detailed", headers=sent, expect=401)
        client.ask("GET", "/debug/tasks", headers=sent, expect=401)


def _unknown_paths(client: Client, ada: Person) -> None:
    new = client.aviary.new
    for kind in ("e-mail", "opaque token", "hexadecimal token", "JWT", "card", "IBAN", "word"):
        secret = new(kind, "segment of an unknown path")
        client.ask("GET", f"/reset/{quote(secret)}", expect=404)
        client.ask("GET", f"/v1/users/{quote(quote(secret))}/confirm", expect=404, noise=True)
        ada.ask("GET", f"/v1/orders/{quote(secret)}", expect=422)
        ada.ask("POST", f"/v1/payments/{quote(secret)}/refund", expect=422)
        client.ask("DELETE", f"/v1/orders/{quote(secret)}", expect=405)
    token = client.aviary.keep("UUID", "segment of an unknown path", str(uuid.uuid4()))
    client.ask("GET", f"/v1/verify/{token}", expect=404)
    client.ask("GET", f"/v1/orders/?token={new('opaque token', 'query of a redirect')}", expect=307)
    client.ask("OPTIONS", f"/v1/users?email={new('e-mail', 'OPTIONS')}", expect=405)
    target = f"http://user:{new('word', 'absolute target')}@shop.example/v1/users/me"
    client.ask("GET", target, expect=401)
    client.ask(new("word", "method").upper(), "/v1/users", expect=400)
    begun = f"POST /v1/users?email={new('e-mail', 'request cut off')} HTTP/1.1\r\nHost: h\r\n"
    client.break_off(
        f'{begun}Content-Length: 900\r\n\r\n{{"password": "{new("word", begun[:4])}'.encode()
    )
    client.break_off(f"{new('e-mail', 'no HTTP at all')} \0\r\n\r\n".encode())


def fail(client: Client, ada: Person, ordered: Mapping[str, Any]) -> None:
    """Run into every fault inside of the service."""
    for order_id, fault in ordered.items():
        if "name" in fault:
            expect = 500 if fault["name"] in ANSWERED_500 else 404
            ada.ask("GET", f"/v1/orders/{order_id}", expect=expect, noise=fault["name"] == "raise")
    for amount in (RECEIPT_FAULT, RECEIPT_LEAK):
        ada.pay(ada.order(amount))


def damaged_message(aviary: Aviary) -> dict[str, str]:
    """Return payload and headers, as JSON, of an event that no consumer can handle."""
    stored = ("outbox_messages.payload", "outbox_messages.headers")

    def new(kind: str) -> str:
        return aviary.new(kind, "damaged message", *stored)

    payload = {"payment_id": new("e-mail"), "order_id": new("word"), "amount": new("card")}
    headers = {"traceparent": f"00-{new('word')}-01", "baggage": f"mail={new('e-mail')}"}
    return {"payload": json.dumps(payload), "headers": json.dumps(headers)}


def unsafe_secret() -> str:
    """Return a value that has to be random and long enough for a signing key."""
    return secrets.token_urlsafe(48)
