"""Saving, finding, checking and converting weights.

Weights of unknown origin are read by :mod:`safe_pickle` or as safetensors, never by plain pickle.
"""
