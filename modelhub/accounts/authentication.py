"""Who is asking, by the header `Authorization: Token …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import timezone
from knox.auth import TokenAuthentication as KnoxTokenAuthentication
from knox.crypto import hash_token
from rest_framework.exceptions import AuthenticationFailed

from modelhub.accounts.models import ApiToken

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


class TokenAuthentication(KnoxTokenAuthentication):
    """Finds a token by its digest, the primary key: one query, where knox asks two or more."""

    def authenticate_credentials(self, token: bytes) -> tuple[AbstractBaseUser, ApiToken]:
        digest = hash_token(token.decode("ascii", errors="replace"))
        found = ApiToken.objects.select_related("user").filter(digest=digest).first()
        if found is None:
            raise AuthenticationFailed("The token is unknown; make one with manage.py create_token or in the admin.")
        if found.expiry is not None and found.expiry <= timezone.now():
            raise AuthenticationFailed(f"The token expired at {found.expiry.isoformat()}; make a new one.")
        if not found.user.is_active:
            raise AuthenticationFailed("The token's user is not active.")
        return found.user, found
