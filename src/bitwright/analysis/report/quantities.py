"""Numbers as people read them: few digits, a unit, one spelling for each kind of quantity."""

from __future__ import annotations

MISSING = "–"
SPACE = "\u00a0"  # between a number and its unit, where no line may break
SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int = 3) -> str:
    """Rounded to `digits` significant ones; powers of ten only below 0.0001 and from a billion on."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}") if abs(value) < 10**digits else value  # 999.6 is 1000
    if abs(value) >= 10**digits and abs(value) < 1e9:
        return f"{value:,.0f}".replace("-", "−")
    if abs(value) < 1e-4 or abs(value) >= 1e9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    rounded = f"{value:#.{digits}g}".rstrip(".")
    return rounded.replace("-", "−")


def scaled(value: float | None, unit: str) -> str:
    """With a decimal prefix: 135 MB, 21.4 GB/s."""
    if value is None:
        return MISSING
    for size, prefix in SCALES:
        if abs(value) >= size:
            return f"{number(value / size)}{SPACE}{prefix}{unit}"
    return f"{number(value) if value != int(value) else int(value)}{SPACE}{unit}".replace("-", "−")


def size(value: float | None) -> str:
    return scaled(value, "B")


def percent(value: float | None) -> str:
    """Of a share: 0.0123 is 1.23 %."""
    if value is None:
        return MISSING
    parts = value * 100
    digits = number(parts, 2) if abs(parts) < 1 else f"{parts:.1f}"
    return f"{digits}{SPACE}%".replace("-", "−")


def change(before: float, after: float) -> str:
    """How far `after` lies from `before`, in percent and with its sign."""
    if before == 0:
        return MISSING
    ratio = (after - before) / abs(before)
    return ("+" if ratio > 0 else "") + percent(ratio)


def with_unit(value: float | None, unit: str) -> str:
    """By the unit's name; a unit that is not known is written behind the number."""
    if value is None:
        return MISSING
    if unit in ("bytes", "B", "byte"):
        return size(value)
    if unit in ("bytes/s", "B/s"):
        return scaled(value, "B/s")
    if unit in ("share", "fraction"):
        return percent(value)
    digits = number(value, 4)
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits and 'e' not in digits else digits}{SPACE}{unit}".strip()


def whole(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}".replace("-", "−")
