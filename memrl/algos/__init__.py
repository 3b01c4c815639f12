"""Algorithms: what to do with a memory's states."""
