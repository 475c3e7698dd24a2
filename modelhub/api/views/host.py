"""The machine: what all models together asked of it and held, over time."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.schema import errors
from modelhub.api.serializers.performance import HostSampleSerializer
from modelhub.api.views.strict import StrictViewSet
from modelhub.api.windows import SECONDS_OF, WindowQuerySerializer
from modelhub.telemetry import queries
from modelhub.telemetry.models import Sample


class HostViewSet(StrictViewSet):
    queryset = Sample.objects.none()
    serializer_class = HostSampleSerializer
    pagination_class = None
    query_of_action = {"samples": WindowQuerySerializer}

    @extend_schema(
        summary="The course of the host's figures, oldest first",
        parameters=[WindowQuerySerializer],
        responses={200: HostSampleSerializer(many=True), **errors(400)},
    )
    def samples(self, request: Request) -> Response:
        """At most 120 steps up to now: requests of all models, what they held, and the budget.

        Quantiles are null in windows longer than an hour.
        """
        window = self.asked()["window"]
        return Response(HostSampleSerializer(queries.series(None, SECONDS_OF[window]), many=True).data)
