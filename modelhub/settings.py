"""Django's settings, made from `modelhub.conf`."""

from __future__ import annotations

import dj_database_url

from modelhub.conf import PROJECT_DIR, config
from modelhub.postgres import embedded_database_url

CONFIG = config()

SECRET_KEY = CONFIG.SECRET_KEY or "set-by-secret-key-file"  # replaced below
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
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "django_q",
    "modelhub.accounts",
    "modelhub.registry",
    "modelhub.lifecycle",
    "modelhub.console",
    "modelhub.api",
    "modelhub",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "modelhub.urls"
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

DATABASES = {
    "default": {
        **dj_database_url.parse(CONFIG.DATABASE_URL or embedded_database_url(CONFIG)),
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": None,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
KNOX_TOKEN_MODEL = "accounts.ApiToken"

LANGUAGE_CODE = "en-us"
TIME_ZONE = CONFIG.TIME_ZONE
USE_I18N = False
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = CONFIG.MODELHUB_STATE_DIR / "static"
LOGIN_URL = "admin:login"
