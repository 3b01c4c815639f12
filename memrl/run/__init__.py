"""One run: its config and identity, its folder, and its training from start to end."""
