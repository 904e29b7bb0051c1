#!/bin/sh
# The roles and the database of the service: it owns its database and is no superuser; the exporter may only look.
#
# Run by: the image of PostgreSQL, once, when the volume is empty. Passwords are read by psql itself, so that no
# command line shows them. Tested by: tests/unit/deploy/test_compose_mounts.py (what can be read), make up.
set -eu

psql --username "$POSTGRES_USER" --dbname postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\set service `cat /run/secrets/glasshouse_password`
\set exporter `cat /run/secrets/exporter_password`
CREATE ROLE glasshouse LOGIN PASSWORD :'service';
CREATE DATABASE glasshouse OWNER glasshouse;
REVOKE ALL ON DATABASE glasshouse FROM PUBLIC;
CREATE ROLE exporter LOGIN PASSWORD :'exporter' CONNECTION LIMIT 5 IN ROLE pg_monitor;
GRANT CONNECT ON DATABASE glasshouse TO exporter;
SQL
