"""Which pictures have the colours that the daemon speaks: sRGB, with its tone curve."""

from __future__ import annotations

OTHER_SPACES = ("adobe", "aces", "prophoto", "romm", "rec2020", "rec.2020", "bt.2020", "p3", "wide", "scrgb", "linear")
"""What the names of profiles with other colours, or without a tone curve, have in them."""


def is_srgb(profile: str) -> bool:
    """Whether a colour profile of this name has the colours and the tone curve of sRGB.

    Krita's own profiles say so in their names. Of others, which cameras and scanners name as they like, only those
    that name another space are told apart.
    """
    name = profile.lower()
    if "-elle-" in name:
        return name.startswith("srgb-") and "srgbtrc" in name
    return not any(other in name for other in OTHER_SPACES)
