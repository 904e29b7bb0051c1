#!/bin/sh
# Starts Alertmanager with each channel led to the real service if there is a secret for it, else to the local one.
#
# Run by: the container of Alertmanager (busybox' sh, as its entrypoint). Tested by:
# tests/monitoring/test_alertmanager_start.py. More arguments are handed to Alertmanager.
# Secrets are files in ALERTMANAGER_SECRETS (/run/secrets); an empty file counts as none:
#   slack_api_url                     Slack: the address of an incoming webhook
#   pagerduty_routing_key, pagerduty_escalation_key    PagerDuty: the first and the second line, both
#   smtp_smarthost, email_domain      e-mail: host:port of a server with TLS; TEAM@email_domain is written to
#   smtp_username, smtp_password      and how to log in there, if it asks
#   watchdog_url                      who raises the alarm when the Watchdog is not heard any more
# Secrets stay in their files: the configuration that is written names the files, and nothing is printed of them.
# ALERTMANAGER_CONFIG is the file to begin with (alertmanager.yml beside this one; the demonstration has another),
# ALERTMANAGER_STORAGE where Alertmanager writes, ALERTMANAGER_EXTERNAL_URL how people reach it.
set -eu
umask 077

here=$(cd "$(dirname "$0")" && pwd)
source=${ALERTMANAGER_CONFIG:-$here/alertmanager.yml}
secrets=${ALERTMANAGER_SECRETS:-/run/secrets}
storage=${ALERTMANAGER_STORAGE:-/alertmanager}
config=$storage/alertmanager.yml

refuse() {
    echo "Alertmanager does not start. $1" >&2
    exit 1
}

given() { [ -s "$secrets/$1" ]; }

# What is written into the configuration can break out of it, or of the command that writes it, if it is anything
# else than a host, an address or a path.
plain() {
    case $1 in
    '' | *[!A-Za-z0-9.:@_+/-]*) refuse "$2 has characters that it cannot have." ;;
    esac
}

value() {
    text=$(cat "$secrets/$1")
    plain "$text" "The secret $1"
    echo "$text"
}

# Changes the configuration, and fails if it is not what this script was written for.
change() {
    sed "$1" "$config" >"$config.new"
    if cmp -s "$config" "$config.new"; then
        refuse "There is nothing to change for $2 in $source: this script and that file no longer fit."
    fi
    mv "$config.new" "$config"
}

[ -r "$source" ] || refuse "There is no $source to read."
plain "$here" "The path of this script"
plain "$secrets" "ALERTMANAGER_SECRETS"
mkdir -p "$storage"
sed "s|/etc/alertmanager/|$here/|; s|templates/\*\.tmpl|$here/templates/*.tmpl|" "$source" >"$config"

slack=local pagerduty=local email=local watchdog=local

if given slack_api_url; then
    change "s|$here/local/slack_api_url|$secrets/slack_api_url|" Slack
    slack=real
fi

if given pagerduty_routing_key || given pagerduty_escalation_key; then
    # With one of them alone, half of the incidents would go to a page that nobody reads at night.
    given pagerduty_routing_key || refuse "The secret pagerduty_routing_key is missing beside the escalation key."
    given pagerduty_escalation_key || refuse "The secret pagerduty_escalation_key is missing beside the routing key."
    change '/^  pagerduty_url:/d' PagerDuty
    change "s|$here/local/pagerduty_|$secrets/pagerduty_|" PagerDuty
    pagerduty=real
fi

if given smtp_smarthost; then
    given email_domain || refuse "The secret email_domain is missing: without it, mail goes to glasshouse.example."
    smarthost=$(value smtp_smarthost)
    domain=$(value email_domain)
    change "s|^  smtp_smarthost:.*|  smtp_smarthost: '$smarthost'|" e-mail
    change "s|^  smtp_require_tls:.*|  smtp_require_tls: true|" e-mail
    change "s|@glasshouse\.example|@$domain|" e-mail
    if given smtp_username; then
        given smtp_password || refuse "The secret smtp_password is missing beside smtp_username."
        username=$(value smtp_username)
        login="  smtp_auth_username: '$username'\\
  smtp_auth_password_file: '$secrets/smtp_password'"
        change "/^  smtp_require_tls:/a\\
$login" e-mail
    fi
    email=real
fi

if given watchdog_url; then
    change "/^  - name: watchdog/,/webhook_configs:/s|webhook_configs:|&\\
      - {url_file: '$secrets/watchdog_url', send_resolved: false}|" "the watchdog"
    watchdog=real
fi

echo "Alertmanager starts: Slack $slack, PagerDuty $pagerduty, e-mail $email, watchdog $watchdog." >&2
# One Alertmanager alone: no gossip, and no port for it.
exec "${ALERTMANAGER_BINARY:-/bin/alertmanager}" --config.file="$config" --storage.path="$storage" \
    --web.external-url="${ALERTMANAGER_EXTERNAL_URL:-http://localhost:9093}" --cluster.listen-address= "$@"
