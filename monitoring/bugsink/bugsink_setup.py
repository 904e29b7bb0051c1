"""Makes Bugsink ready before it starts: schema, the one user, the team and the project that errors go to.

Run by: the one-shot service bugsink-setup, with Bugsink's own image, on every `docker compose up`; what is
there already is left alone, but a changed password or key is applied. As root it gives the database's
directory to BUGSINK_UID (14237) first, and goes on as that user. Tested by
tests/integration/test_bugsink_stack.py.

BUGSINK_KEY (32 hexadecimal digits) is the public part of the project's DSN: http://BUGSINK_KEY@bugsink:8000/1.
It lets its owner send events and nothing else. BUGSINK_USER logs in with the secret `stack_password`.
"""

import io
import os
import sys
import uuid
from pathlib import Path

import django  # type: ignore[import-not-found]  # is in Bugsink's environment only, as all of this
from django.apps import apps  # type: ignore[import-not-found]
from django.contrib.auth import get_user_model  # type: ignore[import-not-found]
from django.core.management import call_command  # type: ignore[import-not-found]
from django.db import transaction  # type: ignore[import-not-found]

PROJECT_ID = 1
PROJECT = TEAM = "glasshouse"
ADMINISTRATOR = 1
"""ProjectRole.ADMIN of Bugsink."""


def become(uid: int, directory: Path) -> None:
    """Give `directory` to the user `uid` and go on as that user, with its rights only."""
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def prepare(key: uuid.UUID, user: str, password: str) -> bool:
    """Bring the schema, the project and the user up to date; return whether the project is new."""
    call_command("check", deploy=True, fail_level="WARNING", stdout=io.StringIO())
    call_command("migrate", verbosity=0)
    projects = apps.get_model("projects", "Project").objects
    members = apps.get_model("projects", "ProjectMembership").objects
    people = get_user_model()
    with transaction.atomic():
        team, _ = apps.get_model("teams", "Team").objects.get_or_create(name=TEAM)
        project, is_new = projects.get_or_create(
            id=PROJECT_ID,
            defaults={"name": PROJECT, "slug": PROJECT, "team": team, "sentry_key": key},
        )
        project.sentry_key = key
        project.save()
        person = people.objects.filter(username=user).first() or people(username=user, email=user)
        person.is_superuser = person.is_staff = person.is_active = True
        person.send_email_alerts = False
        if not person.check_password(password):  # to write the same anew would end every session
            person.set_password(password)
        person.save()
        people.objects.exclude(username=user).update(is_active=False)  # of an earlier BUGSINK_USER
        members.update_or_create(
            project=project,
            user=person,
            defaults={"role": ADMINISTRATOR, "accepted": True, "send_email_alerts": False},
        )
    return bool(is_new)


def main() -> None:
    """Read the environment and the secrets, then prepare."""
    secrets = Path(os.environ.get("BUGSINK_SECRETS", "/run/secrets"))
    user = os.environ.get("BUGSINK_USER", "admin@glasshouse.localhost")
    try:
        key = uuid.UUID(os.environ.get("BUGSINK_KEY", ""))
        password = (secrets / "stack_password").read_text().strip()
    except ValueError:
        sys.exit("BUGSINK_KEY has to be 32 hexadecimal digits, as in SENTRY_DSN.")
    except OSError as error:
        sys.exit(f"The secret stack_password cannot be read: {error.strerror}.")
    if not password:
        sys.exit("The secret stack_password is empty.")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bugsink_settings")
    django.setup()  # reads the secret of its own while it may
    if os.geteuid() == 0:
        uid = int(os.environ.get("BUGSINK_UID", "14237"))
        become(uid, Path(os.environ.get("BUGSINK_DATA", "/data")))
    told = "made" if prepare(key, user, password) else "up to date"
    print(f"The project {PROJECT} is {told}. Log in as {user}.")  # noqa: T201 - a person reads it


if __name__ == "__main__":
    main()
