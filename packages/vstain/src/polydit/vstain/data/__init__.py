"""Pairs in and out: adapters of the layouts in use, our own data sets, and an endless procedural slide."""
