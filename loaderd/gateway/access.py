"""Who asks, and what they may do: the table of token digests that the supervisor pushes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loaderd.errors import NotAuthenticated, PermissionDenied


@dataclass(frozen=True, slots=True)
class Caller:
    user: str
    permissions: frozenset[str]

    def require(self, permission: str) -> None:
        """Raises PermissionDenied unless the caller may do this ("predict", "load", "unload")."""
        if permission not in self.permissions:
            raise PermissionDenied(
                f'{self.user} may not {permission} models; ask an administrator for the permission "{permission}".',
                user=self.user,
                permission=permission,
            )


ALL_PERMISSIONS = frozenset({"predict", "load", "unload"})


@dataclass(slots=True)
class Access:
    """The present token table. clock: unix seconds."""

    tokens: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    _callers: dict[str, Caller] = field(default_factory=dict)

    def replace(self, tokens: Mapping[str, Mapping[str, Any]]) -> None:
        self.tokens = tokens
        self._callers = {
            digest: Caller(row.get("user", ""), frozenset(row.get("permissions", ()))) for digest, row in tokens.items()
        }

    def caller(self, authorization: bytes | None) -> Caller:
        """Whom an Authorization header names ("Token …" or "Bearer …"). Raises NotAuthenticated."""
        if authorization is None:
            raise NotAuthenticated("A token is needed: send the header Authorization: Token <token>.")
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() not in (b"token", b"bearer"):
            raise NotAuthenticated("The Authorization header must be: Token <token>, or Bearer <token>.")
        # The table is keyed by digest, so a lookup tells an attacker nothing about a token's bytes.
        digest = hashlib.sha512(token.strip()).hexdigest()
        row = self.tokens.get(digest)
        if row is None:
            raise NotAuthenticated("This token is not known; it may have been revoked. Create a new one.")
        expires_at = row.get("expires_at")
        if expires_at is not None and expires_at <= self.clock():
            raise NotAuthenticated("This token has expired; create a new one.")
        return self._callers[digest]
