"""Two questions of whoever runs this process: does it live, may it get requests. No login, nothing else told."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

_migrations_seen_applied = False


@never_cache
@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers; a failure here is cured by a restart, so nothing else is asked."""
    return HttpResponse("ok", content_type="text/plain")


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers and is migrated, else 503.

    Not loaderd: without it the registry can still be read, and its absence is told by /api/models/health.
    """
    ready = _database_is_ready()
    return HttpResponse("ok" if ready else "not ready", status=200 if ready else 503, content_type="text/plain")


def _database_is_ready() -> bool:
    global _migrations_seen_applied
    try:
        if _migrations_seen_applied:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            return True
        executor = MigrationExecutor(connection)
        # Reading all migrations costs tens of milliseconds; once applied they stay so.
        _migrations_seen_applied = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return False
    return _migrations_seen_applied
