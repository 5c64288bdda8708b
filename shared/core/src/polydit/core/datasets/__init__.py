"""Data sets that the domains write: their folders, and their splits. Nothing here imports torch."""
