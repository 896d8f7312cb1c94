"""Tokens, keys, grants, and what was done with them."""

from __future__ import annotations

from django.db import models


class Application(models.Model):
    name = models.CharField(max_length=100, unique=True)

    is_authenticated = True

    def __str__(self) -> str:
        return self.name


class Token(models.Model):
    """Only the digest is kept."""

    digest = models.CharField(max_length=64, unique=True)
    application = models.ForeignKey(Application, on_delete=models.CASCADE)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"a token of {self.application}"


class Key(models.Model):
    alias = models.CharField(max_length=100, unique=True)
    spec = models.CharField(max_length=20)
    active = models.BooleanField(default=True)
    # In the clear: a real service would open it with a key of its own on the way.
    material = models.BinaryField()

    def __str__(self) -> str:
        return self.alias


class Grant(models.Model):
    application = models.ForeignKey(Application, on_delete=models.CASCADE)
    key = models.ForeignKey(Key, on_delete=models.CASCADE)
    operation = models.CharField(max_length=30)

    class Meta:
        unique_together = [("application", "key", "operation")]

    def __str__(self) -> str:
        return f"{self.application}: {self.operation} {self.key}"


class Record(models.Model):
    at = models.DateTimeField(auto_now_add=True)
    application = models.CharField(max_length=100)
    operation = models.CharField(max_length=30)
    key = models.CharField(max_length=100)
    outcome = models.CharField(max_length=10)
    source = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.operation} {self.key}: {self.outcome}"
