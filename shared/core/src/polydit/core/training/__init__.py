"""One trainer for every domain: accelerate, EMA, exact resume, a log that needs no service."""

from polydit.core.training.config import TrainConfig
from polydit.core.training.stream import BatchStream, InterleavedStream
from polydit.core.training.trainer import Task, Trainer

__all__ = ["BatchStream", "InterleavedStream", "Task", "TrainConfig", "Trainer"]
