"""Schedulers by the names that artists know, made from the model's own scheduler configuration.

`Schedule.of` gives what the denoising loop runs on. `recipes` says which scheduler of diffusers, set how, stands behind
a name; `levels` puts one on noise levels that another chose; `schedule` leads a run through them, and `hybrid` through
several schedulers in turn.
"""

from ...models.schedulers import offered
from .hybrid import Hybrid
from .recipes import FLOW_NAMES, NAMES, build
from .schedule import Schedule

__all__ = ["FLOW_NAMES", "NAMES", "Hybrid", "Schedule", "build", "offered"]
