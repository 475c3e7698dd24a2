"""Who looks at the console in the browser tests: made in the running product, with a session that is logged in.

Run within the product's settings: `manage.py shell -c "from tests.browser.people import make; make()"`.
"""

from __future__ import annotations

import json

from tests.stack import PASSWORD, Stack

ADMIN, OPERATOR, VIEWER = "ada", "olaf", "vera"
GROUPS = {OPERATOR: "operators", VIEWER: "viewers"}


def make() -> None:
    """Makes the operator and the viewer beside the first admin; prints {name: session key} as JSON."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import Group, User
    from django.contrib.sessions.backends.db import SessionStore

    for name, group in GROUPS.items():
        user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True})
        user.set_password(PASSWORD)
        user.save()
        user.groups.add(Group.objects.get(name=group))
    keys = {}
    for user in User.objects.filter(username__in=[ADMIN, OPERATOR, VIEWER]):
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        keys[user.username] = session.session_key
    print(json.dumps(keys))


def sessions(stack: Stack) -> dict[str, str]:
    """The keys of people's sessions in a running product. To be called once a product."""
    done = stack.manage("shell", "-v", "0", "-c", "from tests.browser.people import make; make()")
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
