"""FLUX.2 (Black Forest Labs 2025, github.com/black-forest-labs/flux2): a transformer for rectified flow.

klein       reads with Qwen3; distilled to 4 steps, and guidance is ignored
klein base  the same before it was distilled, with classifier-free guidance
dev         reads with Mistral; a guidance scale was distilled into it, and there is no negative prompt

All take pictures as references. None was trained to fill masks: the loop keeps the surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from torch import Tensor
from torch.nn import functional

from ...imaging.resize import resize_picture
from ...models.schedulers import steps_of
from ..configurations import refuse_odd_latents, refuse_odd_levels
from ..denoise import Predict
from ..exceptions import BadFiles
from ..flow import even_sigmas, positions
from ..flux2_text import READERS, QwenLayers, Reader, size_of
from ..parts import Network
from ..schedulers import Schedule
from ..sources import Source
from . import Conditions, Embedding, Family

ONE_REFERENCE, OF_SEVERAL = 2024 * 2024, 1024 * 1024
"""Pixels of a reference picture, at most: more if it is the only one."""
REFERENCE_TIME = 10
"""References lie at times 10, 20, ...; the picture at 0."""


class Flux2(Family):
    """A model of FLUX.2, of any variant.

    Latents are [B, 128, H/16, W/16]: the autoencoder's 32 channels in patches of 2×2, each normalised by the mean and
    variance that the autoencoder met in training. The noise levels are shifted for the size in every task.
    """

    NETWORKS: ClassVar[Mapping[str, Network]] = {
        "text_encoder": Network(QwenLayers, "bfloat16"),
        "vae": Network(AutoencoderKLFlux2, "bfloat16"),
        "transformer": Network(Flux2Transformer2DModel, "bfloat16"),
    }
    sees_canvas: ClassVar[bool] = True
    ties_references: ClassVar[bool] = True
    was_trained_large: ClassVar[bool] = True
    guides_in_two_passes: ClassVar[bool] = True

    @classmethod
    def networks_in(cls, source: Source) -> Mapping[str, Network]:
        try:
            reader = _reader(source.config("text_encoder"))
        except (OSError, ValueError) as error:
            raise BadFiles(f"text_encoder: {source.anonymous(str(error))}") from error
        return {**cls.NETWORKS, "text_encoder": Network(reader.network, "bfloat16")}

    def check(self) -> None:
        transformer, text = self.parts.config("transformer"), self.parts.config("text_encoder")
        refuse_odd_latents(self.parts.config("vae"))
        kind, channels = transformer.get("_class_name"), transformer.get("in_channels", 128)
        if kind != Flux2Transformer2DModel.__name__:
            raise BadFiles(f"its transformer is {kind}, not {Flux2Transformer2DModel.__name__}")
        if channels != self.latent_channels:
            raise BadFiles(f"its transformer has {channels} input channels, which its autoencoder does not make")

        self.reader = _reader(text)
        layers, width = size_of(text)
        if layers < self.reader.layers[-1]:
            raise BadFiles(f"its text encoder has {layers} layers, but {self.reader.layers[-1]} are read")
        wanted = transformer.get("joint_attention_dim", 15360)
        if wanted != len(self.reader.layers) * width:
            raise BadFiles(f"its transformer reads {wanted} numbers for each token, not those of its text encoder")
        if not self.tokenizer.chat_template:
            raise BadFiles("its tokenizer has no chat template")

        self.scheduler_config = self.parts.config("scheduler")
        scheduler = self.scheduler_config.get("_class_name")
        if not str(scheduler).startswith("FlowMatch"):
            raise BadFiles(f"its scheduler is {scheduler}, which is none for flows")
        refuse_odd_levels(self.scheduler_config)
        _ = self.schedule("euler", 2, 1.0, (512, 512))
        self.takes_guidance = bool(transformer.get("guidance_embeds", True))
        self.is_distilled = bool(self.parts.config("model_index").get("is_distilled", False))

    @property
    def tokenizer(self) -> Any:
        return self.parts.tokenizer("tokenizer", self.reader.tokenizer)

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def transformer(self) -> Any:
        return self.parts["transformer"]

    @property
    def latent_channels(self) -> int:
        return self.patch**2 * int(self.parts.config("vae").get("latent_channels", 32))

    @property
    def axes(self) -> int:
        """Along which a token has a place: time, row, column, and the place in the text."""
        return len(self.parts.config("transformer").get("axes_dims_rope", (32, 32, 32, 32)))

    @property
    def patch(self) -> int:
        """Cells of the autoencoder along each side of a token."""
        told = self.parts.config("vae").get("patch_size", (2, 2))
        return int(told[0] if isinstance(told, (list, tuple)) else told)

    @property
    def latent_scale(self) -> int:
        blocks = len(self.parts.config("vae").get("block_out_channels", range(4)))
        return self.patch << (blocks - 1)

    @property
    def takes_mask(self) -> bool:
        return False

    def is_guided(self, guidance: float) -> bool:
        """Only the base models of klein are: what is distilled needs no second pass, and no negative prompt."""
        return guidance > 1 and not self.takes_guidance and not self.is_distilled

    def encode_prompt(self, text: str) -> Embedding:
        """The embedding [1, 512, D] of a prompt."""
        return (self.reader.read(self.parts["text_encoder"], self.tokenizer, text, self.device.torch_device),)

    def left_out(self, prompt: str) -> str:
        return self.reader.left_out(self.tokenizer, prompt)

    def encode(self, pictures: Tensor) -> Tensor:
        cells = self.vae.encode(pictures.to(self.vae.dtype)).latent_dist.mode().float()
        mean, deviation = self._statistics()
        return (functional.pixel_unshuffle(cells, self.patch) - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        cells = functional.pixel_shuffle(latents * deviation + mean, self.patch)
        pictures: Tensor = self.vae.decode(cells.to(self.vae.dtype), return_dict=False)[0]
        return pictures.float()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, 128, 1, 1] of the autoencoder's patches, as met in training."""
        norm = self.vae.bn
        mean, variance = norm.running_mean.float(), norm.running_var.float()
        return mean.view(1, -1, 1, 1), (variance + self.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)

    def fitted_reference(self, picture: Tensor, count: int) -> Tensor:
        """A reference picture with sides of 16 px, cropped around its middle, and within what one of `count` may be."""
        height, width = picture.shape[-2:]
        multiple, most = self.latent_scale, ONE_REFERENCE if count == 1 else OF_SEVERAL
        scale = min(1.0, math.sqrt(most / (width * height)))
        width = max(multiple, int(width * scale))
        height = max(multiple, min(int(height * scale), most // width))
        width = min(width, most // height)
        picture = _resized(picture, (width, height))
        left, top = width % multiple // 2, height % multiple // 2
        return picture[..., top : top + height - height % multiple, left : left + width - width % multiple]

    def encode_reference(self, picture: Tensor) -> Embedding:
        """The latents [1, 128, h, w] of a reference picture, one of several if it was fitted as such."""
        return (self.encode(self.fitted_reference(picture, 1)),)

    def schedule(self, name: str, steps: int, strength: float, size: tuple[int, int]) -> Schedule:
        tokens = (size[0] // self.latent_scale) * (size[1] // self.latent_scale)
        steps = steps_of(name, steps)
        mu = empirical_shift(tokens, steps)
        return Schedule.of(name, self.scheduler_config, steps, strength, mu=mu, sigmas=even_sigmas(steps))

    def predictor(self, conditions: Conditions, batch: int) -> Predict:
        device, dtype = self.device.torch_device, conditions.prompt[0].dtype
        width, height = (side // self.latent_scale for side in conditions.size)
        places, beside = [positions(height, width, axes=self.axes)], []
        for number, (latents,) in enumerate(conditions.references, start=1):
            rows, columns = latents.shape[-2:]
            places.append(positions(rows, columns, time=REFERENCE_TIME * number, axes=self.axes))
            beside.append(_to_tokens(latents).expand(batch, -1, -1))
        told = {
            "img_ids": torch.cat(places).to(device),
            "guidance": torch.full([batch], conditions.guidance, device=device) if self.takes_guidance else None,
            "return_dict": False,
        }

        def answer(prompt: Embedding, seen: Tensor, level: Tensor) -> Tensor:
            (text,) = prompt
            words = torch.zeros(text.shape[1], self.axes, device=device)
            words[:, -1] = torch.arange(text.shape[1], device=device)
            text = text.expand(batch, -1, -1)
            output: Tensor = self.transformer(seen, text, level, txt_ids=words, **told)[0]
            return output[:, : height * width].float().transpose(1, 2).reshape(batch, -1, height, width)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            seen = torch.cat([_to_tokens(latents), *beside], dim=1).to(dtype)
            level = (timestep / 1000).to(device).expand(batch)
            wanted = answer(conditions.prompt, seen, level)
            if conditions.negative_prompt is None:
                return wanted
            # One after the other: side by side they would need twice the memory, and take as long.
            without = answer(conditions.negative_prompt, seen, level)
            return without + conditions.guidance * (wanted - without)

        return predict


def empirical_shift(tokens: int, steps: int) -> float:
    """The `mu` by which FLUX.2 shifts its noise levels for a picture of so many tokens in so many steps.

    Black Forest Labs fitted a line in the tokens for 10 steps and one for 200, and go straight from one to the other.
    Large pictures have the second whatever the steps.
    """
    few = 8.73809524e-05 * tokens + 1.89833333
    many = 0.00016927 * tokens + 0.45666666
    return many if tokens > 4300 else many + (few - many) * (200 - steps) / 190


def _reader(config: Mapping[str, Any]) -> Reader:
    kind = str(config.get("model_type"))
    if kind not in READERS:
        raise BadFiles(f"its text encoder is of the kind {kind}, not {' or '.join(READERS)}")
    return READERS[kind]


def _to_tokens(latents: Tensor) -> Tensor:
    """Latents [B, 128, h, w] as tokens [B, h · w, 128], row by row."""
    return latents.flatten(2).transpose(1, 2)


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [1, 3, H, W] in -1..1 at another size (width, height)."""
    if (picture.shape[-1], picture.shape[-2]) == size:
        return picture
    pixels = picture[0].movedim(0, -1).add(1).mul(127.5).round().to(torch.uint8).cpu().numpy()
    scaled = torch.tensor(resize_picture(pixels, size), device=picture.device)
    return scaled.movedim(-1, 0)[None].float() / 127.5 - 1


FAMILY = Flux2
