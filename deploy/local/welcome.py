"""What `make run` prints when everything is ready: where to look, and a journey to paste."""

from collections.abc import Sequence

from deploy.local.environment import HOST, Ports, provider_url


def journey(ports: Ports) -> str:
    """Return commands that register a user, log in, order and pay; for bash and zsh, with curl and python3.

    Paste-safe: no comments and no exclamation marks (an interactive zsh and bash trip over them), every
    address quoted, a new e-mail address each time.
    """
    return f"""\
API=http://{HOST}:{ports.api}
EMAIL="customer-$(date +%s)@example.com"
field() {{ python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }}

curl -sS "$API/v1/users" -H 'Content-Type: application/json' \\
  -d '{{"email": "'"$EMAIL"'", "password": "correct horse battery", "name": "Ada", "source": "web"}}'; echo

TOKEN=$(curl -sS "$API/v1/auth/token" --data-urlencode "username=$EMAIL" \\
  --data-urlencode 'password=correct horse battery' | field access_token)

ORDER=$(curl -sS "$API/v1/orders" -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '{{"currency": "EUR", "lines": [{{"sku": "tea", "quantity": 2, "unit_amount": 1250}}]}}' | field id)

curl -sS "$API/v1/payments" -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -H "Idempotency-Key: pay-$ORDER" -d '{{"order_id": "'"$ORDER"'", "payment_token": "tok_ok"}}'; echo
"""


def welcome(ports: Ports, viewed: Sequence[str]) -> str:
    """Return the whole text; `viewed` are the signals that the viewer shows."""
    api = f"http://{HOST}:{ports.api}"
    provider = provider_url(ports)
    worker = f"http://{HOST}:{ports.worker_metrics}"
    seen = (
        f"\n  {' and '.join(viewed).capitalize():<20}http://{HOST}:{ports.viewer}" if viewed else ""
    )
    return f"""
Glasshouse is running. Ctrl-C stops it.

  API documentation   {api}/docs
  Health              {api}/health
  Metrics             {api}/metrics (API)
                      {worker}/metrics (worker)
                      {provider}/metrics (payment provider){seen}
  Provider's ledger   {provider}/v1/ledger

A journey, to paste into a second terminal; then look at the log lines that follow, and at the
addresses above:

{journey(ports)}"""
