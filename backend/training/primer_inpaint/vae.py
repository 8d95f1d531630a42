"""Stage one: the autoencoder, 128 px pictures to latents `[4, 16, 16]` and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from . import budget
from .pictures import Pictures

Network = TypeVar("Network", bound=nn.Module)

PEAK_RATE = 1.5e-3
CROP = 64
BATCH_OF_CROPS, BATCH_OF_PICTURES = 16, 6
WHOLE_PICTURES_FROM = 0.75
"""Share of the budget from which on whole pictures are shown: normalisation sees what it will."""


def new_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder of the usual architecture, 0.94 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        # Without attention it treats a crop, a picture and a larger picture alike.
        mid_block_add_attention=False,
    )


class Trainee(nn.Module):
    """The autoencoder with a linear head that keeps a picture's colours readable in the latents.

    The head makes linear latent previews exact, and colours easy to learn for the denoiser.
    """

    def __init__(self) -> None:
        super().__init__()
        self.autoencoder = new_autoencoder()
        self.colours = nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Loss of images `[B, 3, H, W]` in -1..1."""
        posterior = self.autoencoder.encode(images).latent_dist
        latents = posterior.sample()
        decoded = self.autoencoder.decode(latents).sample
        # Pooling to 8 px cells: what a preview would show of the picture at latent resolution.
        seen = F.mse_loss(self.colours(posterior.mean), F.avg_pool2d(images, 8))
        loss: Tensor = reconstruction_loss(decoded, images) + 0.5 * seen + 2e-6 * posterior.kl().mean()
        return loss


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Absolute and squared difference, and that of the slopes: edges count more than grain."""
    loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images)
    # Large areas of the right colour first: without this, colours come long after brightness.
    loss = loss + F.mse_loss(F.avg_pool2d(decoded, 8), F.avg_pool2d(images, 8))
    for scale in (1, 2):
        a, b = F.avg_pool2d(decoded, scale), F.avg_pool2d(images, scale)
        for ours, theirs in zip(_slopes(a), _slopes(b), strict=True):
            loss = loss + 0.5 * F.l1_loss(ours, theirs)
    return loss


def channels_last(network: Network) -> Network:
    """The network with its weights laid out as convolutions on a CPU like them: steps are 5 % faster."""
    placed: Any = network
    moved: Network = placed.to(memory_format=torch.channels_last)
    return moved


def as_tensor(images: np.ndarray) -> Tensor:
    """uint8 `[B, H, W, 3]` to float `[B, 3, H, W]` in -1..1, channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return tensor.float().div_(127.5).sub_(1)


def _batch(pictures: Pictures, rng: np.random.Generator, fraction: float) -> Tensor:
    """Crops, later whole pictures, some with a gray hole as masked pictures have."""
    whole = fraction > WHOLE_PICTURES_FROM
    images = pictures.draw_batch(rng, BATCH_OF_PICTURES if whole else BATCH_OF_CROPS)
    side = images.shape[1] if whole else CROP
    room = images.shape[1] - side + 1
    crops = []
    for image in images:
        y, x = rng.integers(0, room, 2)
        crop = image[y : y + side, x : x + side].copy()
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.3:
            crop = _with_hole(rng, crop)
        crops.append(crop)
    return as_tensor(np.stack(crops))


def _with_hole(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    side = len(image)
    y, x = np.mgrid[0:side, 0:side]
    centre, half = rng.uniform(0, side, 2), rng.uniform(0.15, 0.7, 2) * side
    u, v = abs(y - centre[0]) / half[0], abs(x - centre[1]) / half[1]
    power = rng.choice([2.0, 8.0])
    holed = image.copy()
    holed[u**power + v**power < 1] = 127
    return holed


def train_autoencoder(pictures: Pictures, folder: Path, minutes: float, seed: int) -> None:
    """Train until the budget is used; `folder/vae.pt` holds the state, also between runs."""
    path = folder / "vae.pt"
    trainee = channels_last(Trainee())
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=PEAK_RATE, weight_decay=1e-4)
    state = budget.load(path)
    step, used = 0, 0.0
    if state:
        trainee.load_state_dict(state["trainee"])
        optimizer.load_state_dict(state["optimizer"])
        step, used = state["step"], state["used"]
    rng = np.random.default_rng([seed, 1, step])
    pictures.draw_batch(rng, 1)
    clock = budget.Budget(minutes * 60, used)
    saved = reported = time.monotonic()
    total = 0.0
    while clock.fraction < 1:
        budget.set_learning_rate(optimizer, budget.learning_rate(clock.fraction, PEAK_RATE))
        loss = trainee(_batch(pictures, rng, clock.fraction))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        step += 1
        total += loss.item()
        if step % 100 == 0:
            rate = 100 / (time.monotonic() - reported)
            print(f"vae step {step} {clock.used:.0f} s loss {total / 100:.4f} {rate:.2f}/s")
            total, reported = 0.0, time.monotonic()
        if time.monotonic() - saved > budget.SAVE_EVERY:
            _save(path, trainee, optimizer, step, clock)
            saved = time.monotonic()
    _save(path, trainee, optimizer, step, clock)


def _save(path: Path, trainee: Trainee, optimizer: torch.optim.Optimizer, step: int, clock: budget.Budget) -> None:
    budget.save(
        path,
        {
            "trainee": trainee.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "used": clock.used,
        },
    )


def trained_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder as trained so far."""
    state = budget.load(folder / "vae.pt")
    if state is None:
        raise FileNotFoundError(f"no trained autoencoder in {folder}")
    trainee = Trainee()
    trainee.load_state_dict(state["trainee"])
    return trainee.autoencoder.eval().requires_grad_(False)
