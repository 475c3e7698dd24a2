"""Choices of the registry's fields, each with its label."""

from django.db import models

from loaderd.states import ModelState


class ModelType(models.TextChoices):
    """What a model decides about its input; the name of the folder in the store."""

    SENTIMENT = "sentiment", "Sentiment"
    TOPIC = "topic", "Topic"
    INTENT = "intent", "Intent"
    URGENCY = "urgency", "Urgency"
    SPAM = "spam", "Spam"
    LANGUAGE = "language", "Language"
    ENTITY = "entity", "Entity"
    EMBEDDING = "embedding", "Embedding"
    GENERATION = "generation", "Generation"
    OTHER = "other", "Other"


class Status(models.TextChoices):
    """What loaderd observed last; see loaderd.states.ModelState."""

    UNLOADED = ModelState.UNLOADED.value, "Unloaded"
    LOADING = ModelState.LOADING.value, "Loading"
    LOADED = ModelState.LOADED.value, "Loaded"
    UNLOADING = ModelState.UNLOADING.value, "Unloading"
    ERROR = ModelState.ERROR.value, "Error"


class DesiredState(models.TextChoices):
    """What people asked for."""

    UNLOADED = "unloaded", "Unloaded"
    LOADED = "loaded", "Loaded"


class Precision(models.TextChoices):
    """What a model computes in; which of them a framework can do, its load says."""

    AS_STORED = "", "As stored"
    BF16 = "bf16", "bfloat16"
    INT8 = "int8", "8-bit integers"


class HealthStatus(models.TextChoices):
    UNKNOWN = "unknown", "Unknown"
    HEALTHY = "healthy", "Healthy"
    DEGRADED = "degraded", "Degraded"
    UNHEALTHY = "unhealthy", "Unhealthy"
