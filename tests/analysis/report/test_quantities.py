"""Numbers as the report spells them."""

from __future__ import annotations

import pytest

from bitwright.analysis.report.quantities import change, number, percent, scaled, size, whole, with_unit


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0412, "0.0412"), (0.00021, "0.000210"), (3.2e-7, "3.20e−7"), (-0.5, "−0.500"), (17.6234, "17.6")]
    + [(123456.0, "123,456"), (4.2e12, "4.20e12"), (999.6, "1,000"), (None, "–")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (size(135_400_000), "135 MB"),
        (size(888), "888 B"),
        (size(-1500), "−1.50 kB"),
        (scaled(2.14e10, "B/s"), "21.4 GB/s"),
        (percent(0.0123), "1.2 %"),
        (percent(0.00214), "0.21 %"),
        (percent(0.0), "0 %"),
        (change(0.04, 0.05), "+25.0 %"),
        (change(0.05, 0.04), "−20.0 %"),
        (change(0, 1), "–"),
        (with_unit(0.04, "nats"), "0.04 nats"),
        (with_unit(8.2e7, "bytes"), "82.0 MB"),
        (with_unit(0.5, "share"), "50.0 %"),
        (with_unit(118.42, "tokens/s"), "118.4 tokens/s"),
        (with_unit(7, ""), "7"),
        (whole(49152), "49,152"),
    ],
)
def test_units(text: str, expected: str) -> None:
    assert text.replace("\u00a0", " ") == expected
