"""The people who come back: a bounded number of accounts, each used by one customer at a time.

Their addresses and their password stay the same, so that a restart finds them again. Memory and the number of
living accounts do not grow: who has been erased registers again under the same address.
"""

import ipaddress
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sandbox.customers.settings import EMAIL_DOMAIN, CustomersSettings

_NETWORKS: Final = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
"""For documentation (RFC 5737, RFC 3849): nobody has such an address."""
_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) AppleWebKit/605.1.15 Safari/605.1.15",
    "Glasshouse/3.2 (Android 16)",
    "Glasshouse/3.1 (iOS 19.1)",
)
_IPV6_PEOPLE: Final = 65_536


@dataclass(slots=True)
class Account:
    """A person.

    Attributes:
        generation: Counts the accounts that could not be used any more, such as with another password.
        token: Of the latest log-in; empty without one, and after the API refused it.
        rests_until: When the account may be used again, in seconds of the monotonic clock.
    """

    number: int
    address: str
    agent: str
    password: str
    generation: int = 0
    is_registered: bool = False
    token: str = ""
    rests_until: float = 0.0

    @property
    def email(self) -> str:
        """The e-mail address."""
        again = f"-{self.generation}" if self.generation else ""
        return f"customer-{self.number:04d}{again}@{EMAIL_DOMAIN}"

    def start_over(self) -> None:
        """Become somebody else: under this address there is an account with another password."""
        self.generation += 1
        self.is_registered = False
        self.token = ""


class Accounts:
    """Lends accounts."""

    def __init__(self, settings: CustomersSettings, rng: random.Random) -> None:
        password = settings.customers_password.get_secret_value()
        self._rng = rng
        self._idle = [
            Account(number, address_of(number), _AGENTS[number % len(_AGENTS)], password)
            for number in range(max(settings.customers_accounts, settings.customers_users))
        ]

    def first(self, count: int) -> list[Account]:
        """Return the first of them, for a tour that nobody else is on."""
        return self._idle[:count]

    @contextmanager
    def one(self) -> Iterator[Account]:
        """Lend somebody whom nobody else is, for the time of the block."""
        ready = [one for one in self._idle if one.rests_until <= time.monotonic()]
        # All of them are here already, or locked: whoever rests for the shortest time comes early.
        account = (
            self._rng.choice(ready) if ready else min(self._idle, key=lambda one: one.rests_until)
        )
        self._idle.remove(account)
        try:
            yield account
        finally:
            self._idle.append(account)


def address_of(number: int) -> str:
    """Return the address that a person comes from; of four, one has IPv6."""
    networks = [ipaddress.ip_network(one) for one in _NETWORKS]
    network = networks[number % len(networks)]
    turn = number // len(networks)
    if isinstance(network, ipaddress.IPv6Network):
        # A /64 of their own: what is limited is the network.
        return str(network.network_address + (turn % _IPV6_PEOPLE << 64) + 1)
    return str(network.network_address + 1 + turn % (network.num_addresses - 2))
