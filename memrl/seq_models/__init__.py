"""Sequence models, one file per family; all obey the law of ``interfaces.SequenceModel``."""
