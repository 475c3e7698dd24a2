"""The parsers of request bodies, each refusing what is longer than API_MAX_BODY_MB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser

from modelhub.conf import config


class BodyTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "body_too_large"


class LengthChecked:
    """DRF reads the body past Django's own limit, so the announced length is checked first.

    WSGI servers hand on no more than the announced length; a body without one reads as empty.
    """

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        length = int((parser_context or {})["request"].META.get("CONTENT_LENGTH") or 0)
        limit = config().API_MAX_BODY_MB * 1024 * 1024
        if length > limit:
            raise BodyTooLarge(
                f"The body has {length} bytes and {limit} are accepted; send fewer inputs at once "
                "or raise API_MAX_BODY_MB."
            )
        return super().parse(stream, media_type, parser_context)  # type: ignore[misc]


class LimitedJSONParser(LengthChecked, JSONParser):
    pass


class LimitedFormParser(LengthChecked, FormParser):
    """For the browsable API's forms."""


class LimitedMultiPartParser(LengthChecked, MultiPartParser):
    """For the browsable API's forms."""
