"""The console's own pages and live fragments, under the admin's address and behind its door."""

from django.urls import path

from modelhub.console import badges, following
from modelhub.console.acknowledging import acknowledge_view
from modelhub.console.dashboard.views import live as dashboard_live
from modelhub.console.fragments import for_staff
from modelhub.console.jobs import asking, dialogs, naming
from modelhub.console.model_page import rows
from modelhub.console.model_page import views as model_page
from modelhub.console.playground.views import playground
from modelhub.console.registering import describing, reviewing, uploading
from modelhub.console.search import search

app_name = "console"
urlpatterns = [
    path("register/", for_staff(uploading.register), name="register"),
    path("register/name/", for_staff(uploading.check_name), name="register-name"),
    path("register/<str:token>/", for_staff(reviewing.review), name="register-review"),
    path("register/<str:token>/confirm/", for_staff(reviewing.confirm), name="register-confirm"),
    path("register/<str:token>/cancel/", for_staff(reviewing.cancel), name="register-cancel"),
    path("describe/<path:path>/", for_staff(describing.describe), name="describe"),
    path("model/rows/", for_staff(rows.changed), name="model-rows"),
    path("model/<int:pk>/head/", for_staff(model_page.head), name="model-head"),
    path("model/<int:pk>/log/more/", for_staff(model_page.more_log), name="model-log"),
    path("model/<int:pk>/<slug:name>/", for_staff(model_page.tab), name="model-tab"),
    path("lineage/<int:pk>/", for_staff(model_page.lineage), name="lineage"),
    path("find/", for_staff(search), name="search"),
    path("live/badges/", for_staff(badges.live), name="badges"),
    path("live/dashboard/", for_staff(dashboard_live), name="dashboard"),
    path("live/operation/<uuid:pk>/", for_staff(following.live), name="operation"),
    path("live/operation/<uuid:pk>/cancel/", for_staff(following.cancel_view), name="operation-cancel"),
    path("alerts/<int:pk>/acknowledge/", for_staff(acknowledge_view), name="alert-acknowledge"),
    path("jobs/predict/", for_staff(asking.predict_file), name="predict-file"),
    path("jobs/predict/check/", for_staff(asking.check), name="predict-file-check"),
    path("jobs/predict/models/", for_staff(naming.models), name="predict-file-models"),
    path("jobs/predict/versions/", for_staff(naming.versions), name="predict-file-versions"),
    path("jobs/<uuid:pk>/cancel/", for_staff(dialogs.cancel), name="job-cancel"),
    path("jobs/<uuid:pk>/retry/", for_staff(dialogs.retry), name="job-retry"),
    path("jobs/<uuid:pk>/remove/", for_staff(dialogs.remove), name="job-remove"),
    path("operations/<uuid:pk>/follow/", for_staff(following.follow), name="operation-follow"),
    path("operations/together/", for_staff(following.together), name="together"),
    path("live/operations/", for_staff(following.together_live), name="together-live"),
    path("playground/<int:pk>/", for_staff(playground), name="playground"),
]
