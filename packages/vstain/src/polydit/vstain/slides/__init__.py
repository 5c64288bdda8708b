"""Whole slides: reading, tiles, what is tissue, staining that survives a kill, pyramids and objects."""
