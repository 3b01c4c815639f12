"""One run: what it is, where it is kept, and how it is carried out."""
