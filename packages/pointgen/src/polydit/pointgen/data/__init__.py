"""Clouds in and out: readers, writers, PC15k folders, and shapes made from nothing."""
