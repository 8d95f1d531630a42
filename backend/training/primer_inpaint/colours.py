"""The named colours the model knows, how they vary, and which name a colour is nearest to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""Pictures and planes: `[H, W, 3]` or `[H, W]`, values 0..1."""


@dataclass(frozen=True)
class NamedColour:
    """A colour with the words that mean it.

    `rgb` is its centre, 0..255 sRGB. `weight` says how often it is drawn compared with the others.
    """

    name: str
    rgb: tuple[int, int, int]
    synonyms: tuple[str, ...] = ()
    weight: float = 1.0


# Purple and gray are drawn more often: a first model confused them.
COLOURS: tuple[NamedColour, ...] = (
    NamedColour("black", (20, 20, 22), ("jet black",)),
    NamedColour("white", (245, 245, 243), ("snow white",)),
    NamedColour("gray", (128, 128, 128), ("grey",), 1.3),
    NamedColour("red", (208, 28, 34), ("crimson", "scarlet")),
    NamedColour("orange", (245, 135, 25), ("tangerine",)),
    NamedColour("yellow", (248, 220, 50), ("golden yellow",)),
    NamedColour("green", (40, 150, 60), ("emerald",)),
    NamedColour("cyan", (45, 205, 215), ("turquoise", "aqua")),
    NamedColour("blue", (35, 75, 200), ("cobalt", "royal blue")),
    NamedColour("purple", (125, 45, 160), ("violet",), 1.3),
    NamedColour("pink", (245, 150, 185), ("rose",)),
    NamedColour("brown", (115, 70, 40), ("chestnut",)),
)
NAMES: tuple[str, ...] = tuple(colour.name for colour in COLOURS)
JITTER_RGB = 13.0
"""Greatest change of one channel in `jittered`, of 255."""


def lab(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB colours `[..., 3]`, 0..255."""
    srgb = np.asarray(rgb, np.float64) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


_CENTRES = lab(np.array([colour.rgb for colour in COLOURS]))
_WEIGHTS = np.array([colour.weight for colour in COLOURS])


def nearest(rgb: NDArray[Any]) -> str:
    """Name of the colour in `COLOURS` whose centre is nearest in L*a*b* to one sRGB colour `[3]`."""
    distances = np.linalg.norm(_CENTRES - lab(np.asarray(rgb)), axis=-1)
    return NAMES[int(np.argmin(distances))]


def draw_colour(rng: np.random.Generator) -> NamedColour:
    """One of `COLOURS`, by weight."""
    return COLOURS[int(rng.choice(len(COLOURS), p=_WEIGHTS / _WEIGHTS.sum()))]


def jittered(rng: np.random.Generator, colour: NamedColour) -> Floats:
    """A variation of the colour that still has its name as the nearest: `[3]`, 0..1."""
    spread = rng.uniform(-JITTER_RGB, JITTER_RGB, 3)
    return (np.clip(np.array(colour.rgb) + spread, 0, 255) / 255).astype(np.float32)


def any_colour(rng: np.random.Generator) -> Floats:
    """A colour for surroundings: mostly muted as in photographs, sometimes strong. `[3]`, 0..1."""
    if rng.random() < 0.2:
        return jittered(rng, COLOURS[int(rng.integers(len(COLOURS)))])
    value = rng.beta(1.6, 1.4)
    tint = rng.normal(0, 1, 3) * rng.choice([0.02, 0.06, 0.14])
    warmth = rng.normal(0, 0.05)
    return np.asarray(np.clip(value + tint + np.array([warmth, 0, -warmth]), 0, 1), np.float32)
