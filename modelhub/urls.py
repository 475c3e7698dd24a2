"""Addresses: the admin, the API, metrics for Prometheus, and two probes that anybody may ask."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from modelhub.api.probes import livez, readyz
from modelhub.console.metrics import metrics

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", include("modelhub.console.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("modelhub.api.urls")),
    path("metrics", metrics, name="metrics"),
    path("livez", livez),
    path("readyz", readyz),
]
