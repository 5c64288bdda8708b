"""Structures: the typed sample, its readers and writers, and the offline generators."""
