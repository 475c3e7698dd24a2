"""The addresses under /api/, each with and without a slash at its end."""

from __future__ import annotations

from django.urls import include, path, re_path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.routers import APIRootView, SimpleRouter
from rest_framework.views import APIView

from modelhub.api.views.alerts import AlertViewSet
from modelhub.api.views.caching import CacheViewSet
from modelhub.api.views.host import HostViewSet
from modelhub.api.views.jobs import JobViewSet
from modelhub.api.views.lineages import LineageViewSet
from modelhub.api.views.models import ModelViewSet
from modelhub.api.views.operations import OperationViewSet
from modelhub.api.views.policy import PolicyViewSet
from modelhub.api.views.strict import check_query
from modelhub.api.views.system import SystemViewSet


class Router(SimpleRouter):
    def __init__(self) -> None:
        super().__init__()
        self.trailing_slash = "/?"


class Modelhub(APIRootView):
    """The AI models of this machine."""

    api_root_dict = {
        "models": "model-list",
        "health": "system-health",
        "metrics": "system-metrics",
        "unused": "system-unused",
        "lineages": "lineage-list",
        "operations": "operation-list",
        "alerts": "alert-list",
        "jobs": "job-list",
        "samples": "samples",
        "policy": "policy",
        "schema": "schema",
        "docs": "docs",
    }

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        check_query(request, ())


@extend_schema(exclude=True)
class NothingHere(APIView):
    """Answers unknown addresses in the API's error shape, to users only."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        raise NotFound(f"Nothing is at {request.path}; GET /api/docs/ lists what is.")


router = Router()
# The system's names come first: `/api/models/health` is no model.
router.register("models", SystemViewSet, basename="system")
router.register("models", ModelViewSet, basename="model")
router.register("lineages", LineageViewSet, basename="lineage")
router.register("operations", OperationViewSet, basename="operation")
router.register("alerts", AlertViewSet, basename="alert")
router.register("jobs", JobViewSet, basename="job")

urlpatterns = [
    path("", Modelhub.as_view(), name="api-root"),
    path("", include(router.urls)),
    re_path("^policy/?$", PolicyViewSet.as_view({"get": "retrieve", "patch": "partial_update"}), name="policy"),
    re_path("^policy/changes/?$", PolicyViewSet.as_view({"get": "changes"}), name="policy-changes"),
    re_path("^cache/?$", CacheViewSet.as_view({"delete": "clear"}), name="cache"),
    re_path("^samples/?$", HostViewSet.as_view({"get": "samples"}), name="samples"),
    re_path("^schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path("^docs/?$", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    re_path("", NothingHere.as_view()),
]
