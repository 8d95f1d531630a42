"""Above which layer the next picture goes, so that it is seen.

The active layer stays the active one when a picture is painted above it. If the next one went directly above it, too,
the one before would cover it.
"""

from __future__ import annotations

from typing import Collection, Sequence


def above_own_run(layers: Sequence[str], active: str, own: Collection[str]) -> str:
    """The layer above which the next one goes: the last of the unbroken run of our own that lies on `active`.

    That is `active` where there is none, or where it is one of ours itself. `layers` are the ids of one group's
    layers from the bottom up, `active` among them; `own` are those of the layers that we have painted.
    """
    if active in own:
        return active
    above = active
    for layer in layers[layers.index(active) + 1 :]:
        if layer not in own:
            break
        above = layer
    return above
