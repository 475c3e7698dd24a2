"""Settings of DRF, its schema and its tokens; `modelhub.settings` takes them in."""

from __future__ import annotations

from typing import Any

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        # The first one words WWW-Authenticate of a 401.
        "modelhub.accounts.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["modelhub.api.permissions.MayAct"],
    "DEFAULT_PARSER_CLASSES": [
        "modelhub.api.parsers.LimitedJSONParser",
        "modelhub.api.parsers.LimitedFormParser",
        "modelhub.api.parsers.LimitedMultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "modelhub.api.browsable.BrowsableRenderer",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "modelhub.api.errors.handle",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

REST_KNOX = {"TOKEN_TTL": None}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Modelhub",
    "DESCRIPTION": "Loads, unloads, watches and calls the AI models of this machine.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": False, "displayRequestDuration": True},
    "COMPONENT_SPLIT_REQUEST": True,
    "PREPROCESSING_HOOKS": ["modelhub.api.schema.canonical_paths"],
    "ENUM_NAME_OVERRIDES": {
        "ModelStatus": "modelhub.api.serializers.observed.EFFECTIVE_STATUSES",
        "ModelState": "modelhub.registry.choices.Status",
        "DesiredState": "modelhub.registry.choices.DesiredState",
        "SystemStatus": "modelhub.api.serializers.system.SYSTEM_STATUSES",
        "ModelType": "modelhub.registry.choices.ModelType",
        "HealthStatus": "modelhub.registry.choices.HealthStatus",
        "OperationKind": "modelhub.lifecycle.models.OperationKind",
        "OperationStatus": "modelhub.lifecycle.models.OperationStatus",
        "LineageChangeKind": "modelhub.lifecycle.models.LineageChange.Kind",
        "PlanDecision": "modelhub.api.serializers.plans.DECISIONS",
        "SettingSource": "modelhub.api.serializers.policy.SETTING_SOURCES",
        "AlertState": "modelhub.api.serializers.alerts.ALERT_STATES",
        "FileFormat": "modelhub.jobs.formats.FORMATS",
        "Flag": "modelhub.api.serializers.jobs.FLAGS",
    },
}
