"""memrl: experiment sweeps for memory-based reinforcement learning."""

__version__ = "0.1.0"
