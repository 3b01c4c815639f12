"""The command line, one module per command: arguments -> calls -> printing."""
