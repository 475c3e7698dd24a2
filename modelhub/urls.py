"""Addresses: the admin, the API, and two probes that anybody may ask."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from modelhub.api.probes import livez, readyz

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/", include("modelhub.api.urls")),
    path("livez", livez),
    path("readyz", readyz),
]
