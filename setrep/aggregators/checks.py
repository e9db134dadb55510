"""What aggregators ask of their options."""

from __future__ import annotations

from setrep.errors import InputError


def check_count(option: str, value: int, at_least: int = 1) -> None:
    """Refuse a count that is no whole number, or too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise InputError(f"{option} must be a whole number of at least {at_least}, not {value}.")


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse a number of heads that does not divide the dimensions."""
    check_count("num_heads", num_heads)
    if dim % num_heads:
        divisors = [n for n in range(1, min(dim, 64) + 1) if dim % n == 0]
        raise InputError(
            f"num_heads must divide the {dim} dimensions of an item, and {num_heads} does not: "
            f"choose one of {', '.join(map(str, divisors))}."
        )
