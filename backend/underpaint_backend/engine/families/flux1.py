"""FLUX.1 (Black Forest Labs 2024; the report is arXiv:2506.15742): a transformer for rectified flow.

The variants share everything but what the transformer is told besides the noisy latents and the text:

schnell  nothing; it was distilled to a few steps and ignores guidance (its configuration has no `guidance_embeds`)
dev      a guidance scale, which was distilled into it: there is no negative prompt
Fill     the picture with the selection blanked and the selection itself, as more channels of each token (384, not 64)
Redux    reference pictures as more tokens of text: a model that has the parts `image_encoder` and `image_embedder`
Kontext  reference pictures as more tokens of picture. Its networks are configured as dev's, and only the name of its
         pipeline tells them apart: that the catalog grants it references is what counts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.pipelines.flux import ReduxImageEncoder
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, SiglipImageProcessorPil, SiglipVisionModel, T5EncoderModel
from transformers import T5Tokenizer as Tokenizer

from ...models.schedulers import steps_of
from ..configurations import clip_tokenizer, refuse_odd_latents, refuse_odd_levels
from ..denoise import Predict
from ..exceptions import BadFiles
from ..flow import even_sigmas, fitted_size, linear_shift, pack, positions, resized, unpack
from ..parts import Network
from ..schedulers import Schedule
from . import Conditions, Embedding, Family, Region

PATCH = 2
"""Cells of the autoencoder along each side of a token: no configuration tells it, for the pipeline makes the tokens."""
REFERENCE_AREA = 1024 * 1024
"""Pixels of a reference picture, at most: Kontext was trained on about as many."""
REDUX_PARTS = ("image_encoder", "image_embedder", "feature_extractor")


class Flux1(Family):
    """A model of FLUX.1, of any variant. The noise levels are shifted for the size of the picture in every task."""

    NETWORKS: ClassVar[Mapping[str, Network]] = {
        "text_encoder": Network(CLIPTextModel),
        "text_encoder_2": Network(T5EncoderModel, "bfloat16"),
        "vae": Network(AutoencoderKL, "bfloat16"),
        "transformer": Network(FluxTransformer2DModel, "bfloat16"),
        "image_encoder": Network(SiglipVisionModel, "bfloat16", optional=True),
        "image_embedder": Network(ReduxImageEncoder, "bfloat16", optional=True),
    }

    def check(self) -> None:
        config = self.parts.config("transformer")
        self.vae_config = self._config_of_vae()
        # Of a token: its cells; and with the blanked picture and as many pixels of the selection as it has.
        plain = PATCH**2 * self.latent_channels
        filling = 2 * plain + (PATCH * self.latent_scale) ** 2
        channels = config.get("in_channels")
        if channels not in (plain, filling):
            raise BadFiles(f"its transformer has {channels} input channels, not {plain} or {filling} as its VAE makes")
        self.takes_guidance = bool(config.get("guidance_embeds", False))
        self.fills: bool = channels == filling
        self.scheduler_config = self._config_for_flows()
        self.is_redux = self._has_redux()
        self.is_kontext = "Kontext" in str(self.parts.config("model_index").get("_class_name"))
        _ = self.clip_tokenizer, self.t5_tokenizer
        _ = self.schedule("euler", 2, 1.0, (512, 512))

    def _config_for_flows(self) -> dict[str, Any]:
        config = self.parts.config("scheduler")
        name = config.get("_class_name")
        if not str(name).startswith("FlowMatch"):
            raise BadFiles(f"its scheduler is {name}, which is none for flows")
        refuse_odd_levels(config)
        return config

    def _config_of_vae(self) -> dict[str, Any]:
        config = self.parts.config("vae")
        lacking = {"latent_channels", "block_out_channels", "scaling_factor", "shift_factor"} - config.keys()
        if lacking:
            raise BadFiles(f"its VAE is none of FLUX.1: its configuration has no {', '.join(sorted(lacking))}")
        refuse_odd_latents(config)
        return config

    def _has_redux(self) -> bool:
        found = [name for name in REDUX_PARTS if self.parts.has(name)]
        if not found:
            return False
        if len(found) < len(REDUX_PARTS):
            raise BadFiles(f"it has {' and '.join(found)}, but not all of {', '.join(REDUX_PARTS)}")
        _ = self.feature_extractor
        return True

    @property
    def clip_tokenizer(self) -> Any:
        return clip_tokenizer(self.parts, "tokenizer", "text_encoder")

    @property
    def t5_tokenizer(self) -> Any:
        return self.parts.tokenizer("tokenizer_2", Tokenizer)

    @property
    def feature_extractor(self) -> Any:
        return self.parts.tokenizer("feature_extractor", SiglipImageProcessorPil)

    @property
    def dtype(self) -> torch.dtype:
        """What all networks but CLIP calculate in, as they were trained. In half precision, some overflow."""
        return self.device.dtype_for("bfloat16")

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def transformer(self) -> Any:
        return self.parts["transformer"]

    @property
    def latent_channels(self) -> int:
        channels: int = self.vae_config["latent_channels"]
        return channels

    @property
    def latent_scale(self) -> int:
        return int(2 ** (len(self.vae_config["block_out_channels"]) - 1))

    @property
    def size_multiple(self) -> int:
        return PATCH * self.latent_scale

    @property
    def takes_mask(self) -> bool:
        return self.fills

    @property
    def takes_references(self) -> bool:
        return self.is_redux or not self.fills

    @property
    def sees_canvas(self) -> bool:
        """Kontext paints into a selection with the canvas before its eyes, as the classic pipeline does."""
        return self.is_kontext

    @property
    def ties_references(self) -> bool:
        """Kontext was trained with references at the picture's own places, Redux's are words."""
        return not self.is_redux

    @property
    def most_tokens(self) -> int:
        """Tokens of a prompt that T5 is given: schnell was trained with half as many."""
        return 512 if self.takes_guidance else 256

    def is_guided(self, guidance: float) -> bool:
        """Never: guidance is distilled into the transformer, and there is no use for a negative prompt."""
        return False

    def encode_prompt(self, text: str) -> Embedding:
        """T5's embedding [1, T, D] of a prompt, and CLIP's [1, E] of its gist, each cut at what they take."""
        device = self.device.torch_device
        pieces = self._tokens(self.t5_tokenizer, text, self.most_tokens).to(device)
        words = self._tokens(self.clip_tokenizer, text, self.clip_tokenizer.model_max_length).to(device)
        return self.parts["text_encoder_2"](pieces)[0], self.parts["text_encoder"](words).pooler_output

    def left_out(self, prompt: str) -> str:
        """What T5 is not given. CLIP takes less, but only for the gist."""
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        # Where tokens begin: the one that begins a word may claim its first letter, too.
        begins = [begin for begin, _ in self.t5_tokenizer(prompt, **options).offset_mapping]
        kept = self.most_tokens - 1  # the last one says that the text ends
        return prompt[begins[kept] :].strip() if len(begins) > kept else ""

    def encode(self, pictures: Tensor) -> Tensor:
        found = self.vae.encode(pictures.to(self.dtype)).latent_dist.mode().float()
        latents: Tensor = (found - self.vae_config["shift_factor"]) * self.vae_config["scaling_factor"]
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        latents = latents / self.vae_config["scaling_factor"] + self.vae_config["shift_factor"]
        pictures: Tensor = self.vae.decode(latents.to(self.dtype), return_dict=False)[0]
        return pictures.float()

    def encode_reference(self, picture: Tensor) -> Embedding:
        """A picture [1, 3, H, W] as Redux's tokens of text [1, 729, D], or as latents [1, 16, h, w] for Kontext.

        Redux's encoder sees a small square of it, Kontext at most a megapixel.

        Raises `NotImplementedError` for Fill without the parts of Redux.
        """
        if self.is_redux:
            return (self._described(picture),)
        if self.fills:
            raise NotImplementedError("a model that fills masks has no place for references")
        return (self.encode(self.fitted_reference(picture, 1)),)

    def fitted_reference(self, picture: Tensor, count: int) -> Tensor:
        if self.is_redux:
            return picture
        height, width = picture.shape[-2:]
        return resized(picture, fitted_size((width, height), REFERENCE_AREA, self.size_multiple))

    def schedule(self, name: str, steps: int, strength: float, size: tuple[int, int]) -> Schedule:
        config, mu, steps = self.scheduler_config, None, steps_of(name, steps)
        if config.get("use_dynamic_shifting"):
            mu = linear_shift((size[0] // self.size_multiple) * (size[1] // self.size_multiple), config)
        return Schedule.of(name, config, steps, strength, mu=mu, sigmas=even_sigmas(steps))

    def predictor(self, conditions: Conditions, batch: int) -> Predict:
        text, gist = conditions.prompt
        dtype, device = self.dtype, self.device.torch_device
        references = [reference for (reference,) in conditions.references]
        if self.is_redux:
            text, references = torch.cat([text, *references], dim=1), []
        width, height = (side // self.latent_scale for side in conditions.size)
        region = None if conditions.region is None else self._region(conditions.region).expand(batch, -1, -1)
        beside = [pack(latents).expand(batch, -1, -1) for latents in references]
        told = {
            "encoder_hidden_states": text.to(dtype).expand(batch, -1, -1),
            "pooled_projections": gist.to(dtype).expand(batch, -1),
            "guidance": torch.full([batch], conditions.guidance, device=device) if self.takes_guidance else None,
            "txt_ids": torch.zeros(text.shape[1], 3, device=device),
            "img_ids": torch.cat([positions(height // PATCH, width // PATCH), *_places(references)]).to(device),
        }

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            tokens = pack(latents)
            count = tokens.shape[1]
            if region is not None:
                tokens = torch.cat([tokens, region], dim=2)
            seen = torch.cat([tokens, *beside], dim=1)
            level = (timestep / 1000).to(device).expand(batch)
            output = self.transformer(hidden_states=seen.to(dtype), timestep=level, **told, return_dict=False)[0]
            return unpack(output[:, :count].float(), height, width)

        return predict

    def _region(self, region: Region) -> Tensor:
        """What Fill sees of the surroundings [1, N, 320]: the blanked picture, and how far each pixel is selected."""
        selected = functional.pixel_unshuffle(region.coverage, self.latent_scale)
        return torch.cat([pack(region.latents), pack(selected)], dim=2)

    def _described(self, picture: Tensor) -> Tensor:
        """Redux's tokens of a picture: SigLIP's (Zhai et al. 2023, arXiv:2303.15343), in the space of T5's."""
        pixels = picture[0].add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).cpu().numpy()
        options = {"return_tensors": "pt", "input_data_format": "channels_last"}
        seen = self.feature_extractor(images=pixels, **options).pixel_values
        features = self.parts["image_encoder"](seen.to(self.device.torch_device, self.dtype)).last_hidden_state
        tokens: Tensor = self.parts["image_embedder"](features).image_embeds
        return tokens

    @staticmethod
    def _tokens(tokenizer: Any, text: str, length: int) -> Tensor:
        options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
        tokens: Tensor = tokenizer(text, **options).input_ids
        return tokens


def _places(references: list[Tensor]) -> list[Tensor]:
    """Where the tokens of references [1, 16, h, w] lie: each in a time of its own, as Kontext's report says."""
    grids = [(latents.shape[-2] // PATCH, latents.shape[-1] // PATCH) for latents in references]
    return [positions(rows, columns, time) for time, (rows, columns) in enumerate(grids, start=1)]


FAMILY = Flux1
