"""`vstain info`: what a checkpoint is, from its card and its headers; no weight is read."""

from __future__ import annotations

from polydit.core.cli.info import info_command
from polydit.vstain.domain import DOMAIN

info = info_command(DOMAIN, "polydit.vstain.checkpoint:Checkpoint")
