"""Checks of constructors' arguments; each error begins with the argument's name."""

from __future__ import annotations

MAX_LAYERS = 1000  # of a sequence model: a billion would be built one by one, for days


def require(ok: bool, name: str, allowed: str, value: object) -> None:
    """Raise ValueError unless ``ok``: the argument must be what is ``allowed``."""
    if not ok:
        shown = str(value).removesuffix(".0")  # as it was probably typed
        raise ValueError(f"{name} must be {allowed}, got {shown}")


def require_at_least(least: int, **arguments: float) -> None:
    """Raise ValueError if one of the arguments is below ``least``."""
    for name, value in arguments.items():
        require(value >= least, name, f"at least {least}", value)


def require_sizes(n_layer: int, **sizes: int) -> None:
    """Raise ValueError if a size of a sequence model is below 1, or it has too many layers."""
    require_at_least(1, n_layer=n_layer, **sizes)
    require(n_layer <= MAX_LAYERS, "n_layer", f"at most {MAX_LAYERS}", n_layer)
