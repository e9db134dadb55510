"""Encoder and data to numbers; every protocol returns a frozen dataclass and writes no file."""
