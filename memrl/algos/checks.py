"""Ranges of the settings that every algorithm has."""

from __future__ import annotations


def check_settings(gamma: float, tau: float, lr: float, dropout_scope: str) -> None:
    """Raise ValueError, with the name first, if one is out of range."""
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    if not 0 < tau <= 1:
        raise ValueError(f"tau must be in (0, 1], got {tau}")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be above 0, got {lr}")
    if dropout_scope not in ("everywhere", "gradient"):
        raise ValueError(f"dropout_scope must be everywhere or gradient, got {dropout_scope}")
