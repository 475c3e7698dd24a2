"""Who may use the inference door, as loaderd's gateway keeps it: digests of tokens, never tokens."""

from __future__ import annotations

from collections import defaultdict

from django.contrib.auth.models import Permission
from django.db.models import F, Q
from django.utils import timezone

from loaderd.reporter import Access
from modelhub.accounts.models import ApiToken

_VERBS = {f"{verb}_modelversion": verb for verb in ("predict", "load", "unload")}


def access_table() -> dict[str, Access]:
    """Digest -> access, for each valid token of an active user; three queries."""
    tokens = ApiToken.objects.filter(Q(expiry=None) | Q(expiry__gt=timezone.now()), user__is_active=True)
    granted = _granted_verbs()
    return {
        token.digest: Access(
            user=token.user.get_username(),
            permissions=frozenset(_VERBS.values() if token.user.is_superuser else granted[token.user_id]),
            expires_at=token.expiry.timestamp() if token.expiry else None,
        )
        for token in tokens.select_related("user")
    }


def _granted_verbs() -> defaultdict[int, set[str]]:
    """What each user may do, by their own permissions and by their groups'."""
    verbs: defaultdict[int, set[str]] = defaultdict(set)
    permissions = Permission.objects.filter(content_type__app_label="registry", codename__in=_VERBS)
    for path in ("user", "group__user"):
        holders = permissions.filter(**{f"{path}__isnull": False}).values_list(F(f"{path}__pk"), "codename")
        for user_id, codename in holders:
            verbs[user_id].add(_VERBS[codename])
    return verbs
