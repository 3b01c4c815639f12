"""Algorithms: agents that act and learn with a memory."""
