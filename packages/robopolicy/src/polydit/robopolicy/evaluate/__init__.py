"""Policies in closed loop: episodes in a simulator, and how many of them succeed."""
