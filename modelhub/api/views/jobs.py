"""Jobs: files that are predicted offline, with their progress and their results."""

from __future__ import annotations

import uuid
from pathlib import PurePath
from typing import Any, cast

from django.db.models import Q, QuerySet
from django.http import Http404
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.parsers import MultiPartParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.auditing import record_of_job
from modelhub.api.pagination import BareListPagination
from modelhub.api.ranges import file_response
from modelhub.api.schema import PAGE_HEADERS, errors
from modelhub.api.serializers.jobs import JobQuerySerializer, JobSerializer, RetrySerializer, SubmitSerializer
from modelhub.api.views.strict import StrictViewSet, check_no_body
from modelhub.jobs import retrying, submitting
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.formats import MEDIA_TYPES
from modelhub.jobs.models import PREDICT, Job, JobState, may_cancel, may_read_result, may_remove
from modelhub.jobs.receiving import JobReceiver

_FILE: dict[Any, Any] = {
    (200, "application/octet-stream"): OpenApiResponse(OpenApiTypes.BINARY, "The file, in its own type."),
    (206, "application/octet-stream"): OpenApiResponse(OpenApiTypes.BINARY, "The range that was asked for."),
}


class Anything(BaseRenderer):
    """A file is of its own type, whatever is asked for."""

    media_type = "*/*"
    format = "file"
    charset = None


@extend_schema_view(
    list=extend_schema(
        summary="Jobs, newest first",
        parameters=[JobQuerySerializer, *PAGE_HEADERS],
        responses={200: JobSerializer(many=True), **errors(400)},
    ),
    retrieve=extend_schema(summary="One job", responses={200: JobSerializer, **errors(404)}),
)
class JobViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, StrictViewSet):
    """One's own jobs; all of them with the permission jobs.view_job. An ended job goes after JOB_RETENTION_DAYS."""

    queryset = Job.objects.none()
    serializer_class = JobSerializer
    pagination_class = BareListPagination
    lookup_field = "pk"
    lookup_url_kwarg = "job_id"
    lookup_value_regex = "[0-9a-fA-F-]{36}"
    query_of_action = {"list": JobQuerySerializer}
    permission_of_action = {"create": PREDICT, "retry": PREDICT}
    _receiver: JobReceiver | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if self.action == "create":
            self._receive(request)
        super().initial(request, *args, **kwargs)

    def handle_exception(self, error: Exception) -> Response:
        """Whatever went wrong, and wherever: what came of a file that is no job's goes."""
        if self._receiver is not None:
            self._receiver.discard()
        return cast(Response, super().handle_exception(error))

    def get_parsers(self) -> list[Any]:
        if self.action_map.get("post") == "create":
            return [MultiPartParser()]  # the length of the body is checked before, against a limit of its own
        return cast("list[Any]", super().get_parsers())

    def get_queryset(self) -> QuerySet[Job]:
        found = Job.objects.defer("checkpoint")
        if not self.request.user.has_perm("jobs.view_job"):
            found = found.filter(owner=self.request.user.pk)
        if self.action == "list":
            query = self.asked()
            if "state" in query:
                found = found.filter(state=query["state"])
            if "model" in query:
                found = found.filter(Q(model_name=query["model"]) | Q(model_id=query["model"]))
        return found

    def get_object(self) -> Job:
        told = f"No job of yours has the id {self.kwargs['job_id']}; GET /api/jobs/ lists them."
        try:
            uuid.UUID(self.kwargs["job_id"])
            return cast(Job, super().get_object())
        except (Http404, ValueError):
            raise NotFound(told) from None

    @extend_schema(
        summary="Have a file predicted",
        request={"multipart/form-data": SubmitSerializer},
        responses={202: JobSerializer, **errors(400, 403, 404, 413, 429, 507)},
    )
    def create(self, request: Request) -> Response:
        """Answers once the file is received and its first rows fit the model; `Location` is the job's address."""
        receiver = self._receiver
        assert receiver is not None
        serializer = SubmitSerializer(data=request.data)
        receiver.check()
        serializer.is_valid(raise_exception=True)
        job = serializer.submit(receiver.folder, request.user)
        self._receiver = None  # they are the job's from now on
        record_of_job(job, "asked", request.user)
        return Response(
            JobSerializer(job).data, status=status.HTTP_202_ACCEPTED, headers={"Location": f"/api/jobs/{job.pk}/"}
        )

    @extend_schema(summary="Throw a job away", request=None, responses={204: None, **errors(403, 404)})
    def destroy(self, request: Request, **kwargs: Any) -> Response:
        """With its files, whatever it is doing."""
        check_no_body(request)
        job = self.get_object()
        _require(may_remove(request.user, job), "jobs.delete_job")
        record_of_job(job, "removed", request.user)
        submitting.remove(job)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="Cancel a job that has not ended",
        request=None,
        responses={200: JobSerializer, **errors(403, 404, 409)},
    )
    @action(detail=True, methods=["post"], serializer_class=serializers.Serializer)
    def cancel(self, request: Request, **kwargs: Any) -> Response:
        """At once; the batch that is under way is not kept, what was written before is. 409 when it is over."""
        check_no_body(request)
        job = self.get_object()
        _require(may_cancel(request.user, job), "jobs.change_job")
        cancelled = submitting.cancel(job)
        record_of_job(cancelled, "cancelled", request.user)
        return Response(JobSerializer(cancelled).data)

    @extend_schema(
        summary="Go on with a job that failed or was cancelled",
        request=RetrySerializer,
        responses={202: JobSerializer, **errors(400, 403, 404, 409, 429)},
    )
    @action(detail=True, methods=["post"], serializer_class=RetrySerializer)
    def retry(self, request: Request, **kwargs: Any) -> Response:
        """Behind the rows that are written. 409 `job_cannot_go_on` says why it cannot; `from_start` begins anew."""
        job = self.get_object()
        _require(may_cancel(request.user, job), "jobs.change_job")
        serializer = RetrySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        anew = serializer.validated_data["from_start"]
        retried = retrying.retry(job, request.user, from_start=anew)
        record_of_job(retried, "begun anew" if anew else "retried", request.user)
        return Response(JobSerializer(retried).data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(
        summary="The result of a job that has succeeded",
        parameters=[OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="One range of bytes.")],
        responses=_FILE | errors(403, 404, 409),
    )
    @action(detail=True, methods=["get"], renderer_classes=[Anything, JSONRenderer])
    def result(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """The owner's; others need the permission jobs.read_results_job. 409 while there is none."""
        job = self.get_object()
        _require(may_read_result(request.user, job), "jobs.read_results_job")
        if job.state != JobState.SUCCEEDED:
            raise submitting.failed(job)
        name = f"{PurePath(job.input_name).stem or 'result'}.predicted.{job.output_format}"
        try:
            return file_response(
                JobFolder(job.pk).result,
                name=name,
                media_type=MEDIA_TYPES[job.output_format],
                asked=request.headers.get("Range"),
            )
        except FileNotFoundError:
            raise NotFound(f"The result of the job {job.pk} is not there any more.") from None

    def _receive(self, request: Request) -> None:
        """The body is written where it belongs whoever reads it first: for a session that is the check of its CSRF
        token, before permissions. So who logged in without the permission has nothing written."""
        self._receiver = JobReceiver()
        django_request = request._request
        by_session = django_request.user
        if not by_session.is_authenticated or by_session.has_perm(PREDICT):
            self._receiver.receive(django_request)


def _require(is_permitted: bool, permission: str) -> None:
    if not is_permitted:
        raise PermissionDenied(f"The job is another user's, and you lack the permission {permission}.")
