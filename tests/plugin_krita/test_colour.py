"""Which colour profiles are painted into."""

from __future__ import annotations

import pytest
from underpaint_krita.colour import is_srgb


@pytest.mark.parametrize(
    ("profile", "srgb"),
    [
        ("sRGB-elle-V2-srgbtrc.icc", True),
        ("sRGB-elle-V4-srgbtrc.icc", True),
        ("sRGB IEC61966-2.1", True),
        ("sRGB built-in", True),
        ("EPSON  sRGB", True),
        ("c2", True),
        ("", True),
        ("sRGB-elle-V2-g10.icc", False),
        ("ClayRGB-elle-V2-g22.icc", False),
        ("Rec2020-elle-V4-rec709.icc", False),
        ("Adobe RGB (1998)", False),
        ("Display P3", False),
        ("ProPhoto RGB", False),
    ],
)
def test_other_colours_are_told_apart(profile: str, srgb: bool) -> None:
    """A profile that names another space is refused; one that does not is taken for sRGB."""
    assert is_srgb(profile) == srgb
