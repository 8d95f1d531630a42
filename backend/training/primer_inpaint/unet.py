"""Stage three: the denoiser and its text encoder, trained together."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import budget, together
from .latents import Latents, load_latents
from .shapes import SHAPES
from .tokenizer import LENGTH
from .vae import channels_last

PEAK_RATE = 5e-4
BATCH = 24
UNCAPTIONED = 0.09
"""Share of the pictures whose caption is dropped, for classifier-free guidance."""
INSIDE_WEIGHT = 12.0
"""Loss within the selection compared with the surroundings, which are given anyway and not used."""
HOLD = 0.85
"""Share of the budget after which the learning rate falls: shapes are learnt late, at a high rate."""
SHAPE_FOCUS = 3.0
"""How much more often a named shape is drawn that is large enough to be seen at latent resolution."""
LARGE = 0.16
"""Share of the picture that a selection covers for its shape to count as large."""
WIDTH = 96
"""Width of the text encoder."""


def new_scheduler() -> DDIMScheduler:
    """Noise that ends at almost none of the picture left, so that black and white come out too."""
    return DDIMScheduler(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def new_unet() -> UNet2DConditionModel:
    """An untrained inpainting denoiser (9 channels in, 4 out), 6.3 M parameters."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=9,
        out_channels=4,
        block_out_channels=(48, 96, 144),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WIDTH,
        # The configuration's name is historical: these are numbers of heads, 24 wide each.
        attention_head_dim=(2, 4, 6),
        norm_num_groups=12,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder for the tokenizer, 0.3 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Denoiser(nn.Module):
    """Denoiser and text encoder as one module with one loss."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text_encoder = new_text_encoder(tokenizer)
        self.scheduler = new_scheduler()

    def forward(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Loss of latents, surroundings `[B, 4, h, w]`, masks `[B, 1, h, w]`, tokens `[B, T]`."""
        latents, surroundings, mask, tokens = batch
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(latents),))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        embeddings = self.text_encoder(tokens).last_hidden_state
        seen = torch.cat([noisy, mask, surroundings], 1).to(memory_format=torch.channels_last)
        predicted = self.unet(seen, timesteps, embeddings).sample
        weight = 1 + (INSIDE_WEIGHT - 1) * mask
        loss: Tensor = ((predicted - target).square() * weight).mean() / weight.mean()
        return loss


def focus(data: Latents, tokenizer: CLIPTokenizer) -> NDArray[np.float64]:
    """How likely each picture is to be drawn, `[N]`: colours are learnt soon, shapes need more examples."""
    names = tokenizer([shape.name for shape in SHAPES], add_special_tokens=False)["input_ids"]
    named = np.isin(data.tokens[:, 0], [name[0] for name in names]).any(1)
    large = data.masks[:, 1].mean((1, 2)) > LARGE * 255
    weights = np.where(named & large, SHAPE_FOCUS, 1.0)
    return np.asarray(weights / weights.sum(), np.float64)


def draw_batch(
    data: Latents, index: NDArray[np.int64], rng: np.random.Generator, nothing: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pictures `index` `[B]` as a batch for `Denoiser`; `nothing` `[T]` are the tokens of an empty prompt."""
    latents = torch.from_numpy(data.images[index]).float()
    surroundings = torch.from_numpy(data.surroundings[index]).float()
    cells = torch.from_numpy(data.masks[index]).float() / 255
    mask = _as_programs_make_it(cells, rng)
    tokens = torch.from_numpy(data.tokens[index, rng.integers(0, 3, len(index))].astype(np.int64))
    dropped = torch.from_numpy(rng.random(len(index)) < UNCAPTIONED)
    tokens[dropped] = nothing
    return latents, surroundings, mask, tokens


def _as_programs_make_it(cells: Tensor, rng: np.random.Generator) -> Tensor:
    """Masks `[B, 1, h, w]` at latent size: nearest pixel, half covered, touched, or soft."""
    nearest, mean = cells[:, :1], cells[:, 1:]
    choices = torch.stack([nearest, (mean >= 0.5).float(), (mean > 0.02).float(), mean])
    kind = torch.from_numpy(rng.choice(4, len(cells), p=[0.3, 0.15, 0.45, 0.1]))
    return choices[kind, torch.arange(len(cells))]


def _average(average: nn.Module, trained: nn.Module, step: int) -> None:
    """Moving average of the weights, short at the start."""
    keep = min(0.9995, (1 + step) / (20 + step))
    for ours, theirs in zip(average.parameters(), trained.parameters(), strict=True):
        ours.data.lerp_(theirs.data, 1 - keep)


def train_denoiser(folder: Path, minutes: float, seed: int, processes: int) -> None:
    """Train until the budget is used; `folder/unet.pt` holds the state, also between runs."""
    together.run(processes, folder, _train, folder, minutes, seed, BATCH // processes)


def _train(rank: int, folder: Path, minutes: float, seed: int, batch: int) -> None:
    path = folder / "unet.pt"
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    nothing = torch.tensor(tokenizer("", padding="max_length", max_length=LENGTH, truncation=True)["input_ids"])
    data = load_latents(folder)
    chances = focus(data, tokenizer)
    torch.manual_seed(seed)
    denoiser = channels_last(Denoiser(tokenizer))
    average = copy.deepcopy(denoiser)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    state = budget.load(path)
    step, used = 0, 0.0
    if state:
        denoiser.load_state_dict(state["denoiser"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, used = state["step"], state["used"]
    rng = np.random.default_rng([seed, 2, step, rank])
    torch.manual_seed(int(rng.integers(2**62)))
    clock = budget.Budget(minutes * 60, used)
    saved = reported = time.monotonic()
    fraction, total = clock.fraction, 0.0
    while fraction < 1:
        budget.set_learning_rate(optimizer, budget.learning_rate(fraction, PEAK_RATE, HOLD))
        loss = denoiser(draw_batch(data, rng.choice(len(chances), batch, p=chances), rng, nothing))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The clocks differ a little: all processes go by their mean, or their networks would part.
        fraction, mean_loss = together.average_gradients(denoiser, clock.fraction, loss.item())
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        step += 1
        total += mean_loss
        if rank > 0:
            continue
        _average(average, denoiser, step)
        if step % 50 == 0:
            rate = 50 / (time.monotonic() - reported)
            print(f"unet step {step} {clock.used:.0f} s loss {total / 50:.4f} {rate:.2f}/s", flush=True)
            total, reported = 0.0, time.monotonic()
        if time.monotonic() - saved > budget.SAVE_EVERY:
            _save(path, denoiser, average, optimizer, step, clock)
            saved = time.monotonic()
    if rank == 0:
        _save(path, denoiser, average, optimizer, step, clock)


def _save(
    path: Path,
    denoiser: Denoiser,
    average: Denoiser,
    optimizer: torch.optim.Optimizer,
    step: int,
    clock: budget.Budget,
) -> None:
    budget.save(
        path,
        {
            "denoiser": denoiser.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "used": clock.used,
        },
    )


def trained_denoiser(folder: Path, tokenizer: CLIPTokenizer) -> Denoiser:
    """The averaged denoiser as trained so far."""
    state = budget.load(folder / "unet.pt")
    if state is None:
        raise FileNotFoundError(f"no trained denoiser in {folder}")
    denoiser = Denoiser(tokenizer)
    denoiser.load_state_dict(state["average"])
    return denoiser.eval().requires_grad_(False)
