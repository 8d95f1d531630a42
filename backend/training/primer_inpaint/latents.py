"""Stage two: everything the denoiser trains on, computed once and kept in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from . import budget
from .captions import with_unknown_words
from .pictures import Pictures
from .samples import CAPTIONS
from .tokenizer import token_ids, train_tokenizer
from .vae import as_tensor, channels_last, new_autoencoder, trained_autoencoder

BATCH = 32


@dataclass(frozen=True)
class Latents:
    """The denoiser's data.

    `images` and `surroundings` `[N, 4, 16, 16]` (the latter of the picture with its selection
    blanked); `masks` `[N, 2, 16, 16]`, 0..255: the nearest pixel's, and the mean of each cell;
    `tokens` `[N, wordings, tokens]`.
    """

    images: NDArray[np.float16]
    surroundings: NDArray[np.float16]
    masks: NDArray[np.uint8]
    tokens: NDArray[np.int16]


def _encode(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    images = images.to(memory_format=torch.channels_last)
    latents: Tensor = autoencoder.encode(images).latent_dist.mode()
    return latents


def standardise(autoencoder: AutoencoderKL, images: Tensor) -> None:
    """Fold into the 1×1 convolutions that each latent channel has mean 0 and deviation 1.

    So the denoiser's noise fits its data, and `scaling_factor` is 1.
    """
    latents = _encode(autoencoder, images)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = autoencoder.quant_conv, autoencoder.post_quant_conv
    into.weight[:4] /= deviation[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / deviation
    into.bias[4:] -= 2 * deviation.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation[None, :, None, None]
    autoencoder.register_to_config(scaling_factor=1.0)


def finished_autoencoder(folder: Path) -> AutoencoderKL:
    """The trained autoencoder with standardised latents."""
    state = budget.load(folder / "vae_standardised.pt")
    if state is None:
        raise FileNotFoundError(f"no standardised autoencoder in {folder}")
    autoencoder = new_autoencoder()
    autoencoder.load_state_dict(state)
    autoencoder.register_to_config(scaling_factor=1.0)
    return autoencoder.eval().requires_grad_(False)


def trained_tokenizer(pictures: Pictures) -> CLIPTokenizer:
    """The tokenizer of the first pictures' captions; the same one every time."""
    texts = [text for number in range(2) for texts in pictures.chunk(number)[2] for text in texts]
    return train_tokenizer(texts)


def _blanked(images: Tensor, masks: Tensor) -> Tensor:
    """Images in -1..1 whose selected pixels are 0, as the inpainting pipeline blanks them."""
    return images * (masks < 0.5)


def _encode_chunk(autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, pictures: Pictures, number: int) -> Latents:
    images, masks, captions = pictures.chunk(number)
    encoded, blanked = [], []
    for start in range(0, len(images), BATCH):
        batch = as_tensor(images[start : start + BATCH])
        mask = torch.from_numpy(masks[start : start + BATCH]).float().div(255)[:, None]
        encoded.append(_encode(autoencoder, batch).half().numpy())
        blanked.append(_encode(autoencoder, _blanked(batch, mask)).half().numpy())
    all_masks = torch.from_numpy(masks).float()[:, None]
    cells = torch.cat([F.interpolate(all_masks, size=(16, 16)), F.avg_pool2d(all_masks, 8)], 1)
    return Latents(
        np.concatenate(encoded),
        np.concatenate(blanked),
        cells.to(torch.uint8).numpy(),
        _tokens(tokenizer, captions, np.random.default_rng([pictures.seed, 3, number])),
    )


def _tokens(tokenizer: CLIPTokenizer, captions: list[tuple[str, ...]], rng: np.random.Generator) -> NDArray[np.int16]:
    """Token ids of all wordings; the last wording of each picture speaks in unknown words."""
    known = [token_ids(tokenizer, [texts[i] for texts in captions]) for i in range(CAPTIONS - 1)]
    unknown = [with_unknown_words(rng, texts[-1]) for texts in captions]
    return np.stack([*known, token_ids(tokenizer, unknown)], 1)


@torch.inference_mode()
def encode_pictures(pictures: Pictures, folder: Path) -> None:
    """Encode all pictures into `folder/latents`; chunks that are there already stay."""
    target = folder / "latents"
    target.mkdir(exist_ok=True)
    tokenizer = trained_tokenizer(pictures)
    tokenizer.save_pretrained(folder / "tokenizer")
    if not (folder / "vae_standardised.pt").exists():
        autoencoder = trained_autoencoder(folder)
        standardise(autoencoder, as_tensor(pictures.chunk(0)[0][:512]))
        budget.save(folder / "vae_standardised.pt", autoencoder.state_dict())
    autoencoder = channels_last(finished_autoencoder(folder))
    for number in range(pictures.chunks):
        path = target / f"{number:05}.npz"
        if not path.exists():
            latents = _encode_chunk(autoencoder, tokenizer, pictures, number)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **vars(latents))
            part.rename(path)
            print(f"latents {number + 1}/{pictures.chunks}")


def load_latents(folder: Path) -> Latents:
    """All latents encoded so far."""
    chunks = []
    for path in sorted((folder / "latents").glob("*.npz")):
        with np.load(path) as arrays:
            chunks.append(Latents(**{name: arrays[name] for name in arrays.files}))
    return Latents(
        np.concatenate([chunk.images for chunk in chunks]),
        np.concatenate([chunk.surroundings for chunk in chunks]),
        np.concatenate([chunk.masks for chunk in chunks]),
        np.concatenate([chunk.tokens for chunk in chunks]),
    )
