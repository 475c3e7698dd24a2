"""The console's own pages and live fragments, under the admin's address and behind its door."""

from django.urls import path

from modelhub.console import following
from modelhub.console.dashboard.views import live as dashboard_live
from modelhub.console.fragments import for_staff

app_name = "console"
urlpatterns = [
    path("live/dashboard/", for_staff(dashboard_live), name="dashboard"),
    path("live/operation/<uuid:pk>/", for_staff(following.live), name="operation"),
    path("live/operation/<uuid:pk>/cancel/", for_staff(following.cancel_view), name="operation-cancel"),
]
