"""Whole networks that more than one domain uses."""

from polydit.core.models.dit import DiT

__all__ = ["DiT"]
