"""API tokens. Only the digest is kept; the token is shown once."""

from django.db import models
from knox.models import AbstractAuthToken


class ApiToken(AbstractAuthToken):
    """A user's token for the API and the inference door. digest: SHA-512 of the token, hexadecimal."""

    name = models.CharField(max_length=100, blank=True, help_text="What it is for.")

    class Meta:
        ordering = ["-created"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.name or 'token'} of {self.user} ({self.token_key}…)"
