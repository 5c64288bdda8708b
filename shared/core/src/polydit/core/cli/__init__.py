"""Command lines: shared options, error handling, output, configuration. Imports click only."""
