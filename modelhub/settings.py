"""Django's settings, made from `modelhub.conf`."""

from __future__ import annotations

import os
from typing import Any

import dj_database_url

from modelhub.api.settings import REST_FRAMEWORK, REST_KNOX, SPECTACULAR_SETTINGS  # noqa: F401 (read by name)
from modelhub.conf import PROJECT_DIR, config, refuse
from modelhub.console.site import UNFOLD  # noqa: F401 (read by name)
from modelhub.postgres import PostgresError, embedded_database_url
from modelhub.secret_key import secret_key

CONFIG = config()
# Which part of a running Modelhub this process is: web, queue, loaderd; empty for commands. Set by `up`.
PART = os.environ.get("MODELHUB_PART", "")

SECRET_KEY = secret_key(CONFIG)
# What Django reads at once; its own 2.5 MB would refuse bodies that the API promises to take.
DATA_UPLOAD_MAX_MEMORY_SIZE = CONFIG.API_MAX_BODY_MB * 1024 * 1024
# Files are written by one page alone, to a place and within limits of its own: registry.uploads.
FILE_UPLOAD_HANDLERS = ["modelhub.registry.uploads.receiving.NoFiles"]
DATA_UPLOAD_MAX_NUMBER_FILES = CONFIG.UPLOAD_MAX_FILES
DEBUG = CONFIG.DEBUG
ALLOWED_HOSTS = [host.strip() for host in CONFIG.ALLOWED_HOSTS.split(",") if host.strip()]

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.forms",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "django_q",
    "modelhub.accounts",
    "modelhub.registry",
    "modelhub.policy",
    "modelhub.telemetry",
    "modelhub.lifecycle",
    "modelhub.jobs",
    "modelhub.console",
    "modelhub.api",
    "modelhub",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "modelhub.security.content_security_policy",
    "modelhub.security.no_nul_in_addresses",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "modelhub.urls"
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"  # so templates/ may have widgets of its own
WSGI_APPLICATION = "modelhub.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PROJECT_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Database


def _database() -> dict[str, Any]:
    url = CONFIG.DATABASE_URL
    if not url:
        # The embedded server is ours alone: what the shell says of other servers does not concern it.
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]
        try:
            url = embedded_database_url(CONFIG)
        except PostgresError as error:
            refuse([str(error)])
    database: dict[str, Any] = {**dj_database_url.parse(url), "CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": None}
    database["OPTIONS"] = {
        "application_name": f"modelhub {PART or 'command'}",
        "connect_timeout": 5,
        **database.get("OPTIONS", {}),
    }
    if PART == "web":
        # Only here: a pool does not survive the forks of the task queue, and refuses CONN_MAX_AGE.
        database["CONN_MAX_AGE"] = 0
        database["OPTIONS"]["pool"] = {
            "min_size": 1,
            "max_size": 2 * CONFIG.WEB_THREADS,  # a thread holds one; those who wait share a listener beside the pool
            "timeout": 5,
            "reconnect_timeout": 5,  # after it the next request tries at once; longer would back off for minutes
        }
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Users and tokens

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# Only knox' code is used. Its own table would stand empty beside ours and keep tests from emptying the users' one.
MIGRATION_MODULES = {"knox": None}
KNOX_TOKEN_MODEL = "accounts.ApiToken"  # noqa: S105 (no password)
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

# What browsers may do

# A message may hold a new token, which a cookie would keep in the browser.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
if CONFIG.BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$"]  # asked for on this machine, past the proxy
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# Task queue

Q_CLUSTER = {
    "name": "modelhub",
    "orm": "default",
    "broker_class": "modelhub.lifecycle.broker.NotifyBroker",
    "poll": 0,  # the broker waits for a notification instead
    "workers": CONFIG.QUEUE_WORKERS,
    "queue_limit": CONFIG.QUEUE_WORKERS,  # more would be fetched early, and `retry` counts from then
    "timeout": 20,  # a task hands its command to loaderd and ends; it does not wait for a load
    "retry": 30,  # above `timeout`, or a task would run twice at once
    # A task that raised is delivered again; lifecycle.tasks counts, and ends the operation.
    "max_attempts": 0,
    "ack_failures": False,
    "save_limit": 250,
    "catch_up": False,
    "bulk": 1,
    "log_level": CONFIG.PERFORMANCE_LOG_LEVEL,
}

# Language, time, static files

LANGUAGE_CODE = "en-us"
TIME_ZONE = CONFIG.TIME_ZONE
USE_I18N = False
USE_TZ = True
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "Y-m-d H:i:s"  # with seconds: what happened first matters
DATE_FORMAT = SHORT_DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i:s"
STATIC_URL = "static/"
STATIC_ROOT = CONFIG.MODELHUB_STATE_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "modelhub.static_storage.GzippedManifestStorage"},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": CONFIG.PERFORMANCE_LOG_LEVEL},
    "loggers": {
        # Django's own handlers would say it twice, or send mail.
        "django": {"handlers": [], "level": CONFIG.PERFORMANCE_LOG_LEVEL, "propagate": True},
        "django-q": {"level": "WARNING"},  # INFO tells of every task
        "httpx": {"level": "WARNING"},  # INFO tells of every prediction
        "django.db.backends": {"level": "INFO"},  # DEBUG would log every query with its values
    },
}
