"""Which models there are, and where their files lie. Nothing here imports torch."""
