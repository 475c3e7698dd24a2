"""The registry and the loaderd of the API's tests."""

from tests.api.conftest import (  # noqa: F401
    _listening_ends_before_the_database,
    loaderd,
    loaderd_is_heard,
    make_version,
)
