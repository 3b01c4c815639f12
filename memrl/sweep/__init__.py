"""Sweeps: which runs there are, what each of them does, and where they run."""
