"""Pages of a list that stays the specification's bare list: what is before and after is told by headers."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.response import Response

from modelhub.conf import config


class BareListPagination(LimitOffsetPagination):
    """At most API_LIST_LIMIT items an answer, fewer with ?limit=; X-Total-Count counts all.

    Link (RFC 8288) has rel="next" and rel="prev" where there is more, so a client that reads only the
    body of a list within the limit needs neither.
    """

    def get_limit(self, request: Any) -> int:
        cap = config().API_LIST_LIMIT
        return min(_whole_number(request, "limit", default=cap, least=1), cap)

    def get_offset(self, request: Any) -> int:
        return _whole_number(request, "offset", default=0, least=0)

    def get_paginated_response(self, data: Any) -> Response:
        links = (("next", self.get_next_link()), ("prev", self.get_previous_link()))
        headers = {"X-Total-Count": str(self.count)}
        if told := [f'<{url}>; rel="{rel}"' for rel, url in links if url]:
            headers["Link"] = ", ".join(told)
        return Response(data, headers=headers)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema


def _whole_number(request: Any, name: str, default: int, least: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    # More than nine digits would pass what Postgres takes for an offset.
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
        raise ValidationError({name: [f"{text!r} is no whole number from {least} to 999999999."]})
    return int(text)
