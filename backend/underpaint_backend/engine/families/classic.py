"""Any other pipeline of diffusers that makes pictures of words, by the class that `model_index.json` names.

The pipeline's own loop runs. Previews are overheard at its scheduler, and its networks can be cancelled like all
others. Nothing but classes of diffusers and transformers is made, and nothing is read but safetensors.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from traceback import walk_tb
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.pipelines import auto_pipeline
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ...models.schedulers import OWN, of_flow
from ...models.sizes import size_multiple
from ..configurations import refuse_odd_levels
from ..denoise import Predict, Step
from ..device import is_out_of_memory
from ..exceptions import BadFiles, UnknownScheduler
from ..flow import resized, unpack
from ..painting import Observer, Painting
from ..parts import Network
from ..preview import LatentToRGB
from ..schedulers import Schedule, build
from ..sources import FolderSource, Source
from ..tap import at_first_pass, tapped
from . import Conditions, Embedding, Family

NEEDED = ("prompt", "num_inference_steps", "num_images_per_prompt", "generator", "output_type")
"""What a pipeline that makes pictures of words is told. Those for sounds, films and texts lack one or the other."""

AS_ASKED = {"clean_caption": False, "use_resolution_binning": False, "_auto_resize": False}
"""Where a pipeline would change the prompt, or the size of pictures, by itself: not here."""

DENOISERS = ("transformer", "unet")


class Classic(Family):
    """A model that diffusers runs as a whole: see `paint`.

    How a pipeline keeps latents is its own business. What the rest of the engine sees of them are small pictures.
    """

    NETWORKS: ClassVar[Mapping[str, Network]] = {}
    latent_channels = 3
    latent_scale = 1

    @classmethod
    def networks_in(cls, source: Source) -> Mapping[str, Network]:
        index = read_index(source)
        # Models with a transformer overflow in half precision, and all networks of a pipeline calculate in the same.
        precision: Any = "bfloat16" if "transformer" in index else "half"
        found = {name: component_class(*named) for name, named in _named(index).items()}
        return {name: Network(part, precision) for name, part in found.items() if issubclass(part, nn.Module)}

    def check(self) -> None:
        self.index = read_index(self.parts.source)
        self.cls = pipeline_class(self.index.get("_class_name"))
        if not any(self.parts.has(name) for name in DENOISERS):
            raise BadFiles(f"it has neither of {', '.join(DENOISERS)}")
        if "scheduler" not in _named(self.index, ()):
            raise BadFiles("it has no scheduler")
        self.scheduler_config = self.parts.config("scheduler")
        refuse_odd_levels(self.scheduler_config)
        _ = self._scheduler(OWN)
        self._colours: LatentToRGB | None = None
        _ = self._others()

    @property
    def size_multiple(self) -> int:
        denoiser = next(name for name in DENOISERS if self.parts.has(name))
        vae = self.parts.config("vae") if self.parts.has("vae") else None
        return size_multiple(vae, self.parts.config(denoiser))

    @property
    def takes_mask(self) -> bool:
        return "mask_image" in _arguments_of(self.cls)

    def encode_prompt(self, text: str) -> Embedding:
        raise NotImplementedError("the pipeline encodes prompts by itself")

    def left_out(self, prompt: str) -> str:
        """What none of the pipeline's tokenizers has room for; nothing where one of them does not say."""
        others = self._others().values()
        rests = [self._rest(tokenizer, prompt) for tokenizer in others if hasattr(tokenizer, "model_max_length")]
        return min(rests, key=len, default="")

    def _rest(self, tokenizer: Any, prompt: str) -> str:
        """The end of a prompt for which a tokenizer has no room."""
        most = tokenizer.model_max_length
        if not isinstance(tokenizer, CLIPTokenizer):  # CLIP's has a place for so many tokens and no more
            asked = _arguments_of(self.cls).get("max_sequence_length")
            most = min(most, asked.default if asked is not None and isinstance(asked.default, int) else most)
        if not tokenizer.is_fast:  # it does not tell where its tokens are
            return ""
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        begins = [begin for begin, _ in tokenizer(prompt, **options).offset_mapping]
        kept = most - tokenizer.num_special_tokens_to_add()
        return prompt[begins[kept] :].strip() if len(begins) > kept else ""

    def predictor(self, conditions: Conditions, batch: int) -> Predict:
        raise NotImplementedError("the pipeline denoises by itself")

    def schedule(self, name: str, steps: int, strength: float, size: tuple[int, int]) -> Schedule:
        """What the pipeline is expected to run; it makes its own, by rules that may differ a little."""
        return Schedule.of(name, self.scheduler_config, steps, strength)

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def paint(self, painting: Painting, observer: Observer) -> Tensor:
        """The pictures [B, 3, H, W] of a painting, in -1..1, by the pipeline's own loop.

        The `x0` of its steps are pictures [B, 3, h, w] as well, one pixel for each latent cell.

        Raises `UnknownScheduler`.
        """
        cls = self._class_for(painting)
        pipeline = self._pipeline(cls, painting.scheduler)
        try:
            return self._run(pipeline, painting, observer)
        except Exception as error:
            if painting.scheduler == OWN or is_out_of_memory(error) or not _blames(pipeline.scheduler, error):
                raise
            raise UnknownScheduler(painting.scheduler, (OWN,)) from error

    def _run(self, pipeline: Any, painting: Painting, observer: Observer) -> Tensor:
        scale = _scale(pipeline)
        cells = (painting.size[1] // scale, painting.size[0] // scale)

        def on_step(step: Step) -> None:
            observer.on_step(Step(step.number, step.total, self._small(step.x0, cells)))

        observer.on_phase("encoding")
        with ExitStack() as stack:
            denoiser = self.parts[next(name for name in DENOISERS if self.parts.has(name))]
            stack.enter_context(at_first_pass(denoiser, lambda: observer.on_phase("denoising")))
            stack.enter_context(tapped(pipeline.scheduler, on_step, lambda: observer.on_phase("decoding")))
            pictures: Tensor = pipeline(**self._told(type(pipeline), painting)).images
        return resized(pictures.float() * 2 - 1, painting.size)

    def _class_for(self, painting: Painting) -> Any:
        """The class that does what is asked for with the parts of this model, where diffusers has one beside its own.

        A model that takes masks, or a picture to change, is asked for in the same way with and without a canvas.
        """
        if painting.source is None or "image" in _arguments_of(self.cls):
            return self.cls
        name = self.cls.__name__
        for mapping in (auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING, auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING):
            other = auto_pipeline._get_task_class(mapping, name, throw_error_if_not_exist=False)
            if other is not None:
                return other
        return self.cls

    def _pipeline(self, cls: Any, scheduler: str) -> Any:
        parts = {name: self.parts[name] for name in self.parts.names} | self._others()
        settings = {name: value for name, value in self.index.items() if not isinstance(value, list)}
        settings["requires_safety_checker"] = False
        wanted = inspect.signature(cls.__init__).parameters
        given = {name: value for name, value in {**settings, **parts}.items() if name in wanted}
        absent = {name: None for name in wanted if name in self.index}
        pipeline = cls(**{**absent, **given, "scheduler": self._scheduler(scheduler)})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _scheduler(self, name: str) -> Any:
        if name != OWN:
            try:
                return build(name, self.scheduler_config)
            except UnknownScheduler as error:
                raise UnknownScheduler(name, (OWN,)) from error
        cls = component_class(*_named(self.index, ())["scheduler"])
        if not issubclass(cls, diffusers.SchedulerMixin):
            raise BadFiles(f"{cls.__name__} is no scheduler")
        return cls.from_config(self.scheduler_config)

    def _others(self) -> dict[str, Any]:
        """Tokenizers and image processors; what a pipeline can do without may be missing."""
        spared = {name for name in self.cls._optional_components if not self.parts.has(name)}
        classes = {name: component_class(*named) for name, named in _named(self.index, LEFT_OUT | spared).items()}
        others = {name: cls for name, cls in classes.items() if not issubclass(cls, nn.Module)}
        return {name: self.parts.tokenizer(name, _Closed(cls)) for name, cls in others.items()}

    def _told(self, cls: Any, painting: Painting) -> dict[str, Any]:
        """What the pipeline is called with: as much of the painting as its class understands."""
        understood = _arguments_of(cls)
        width, height = painting.size
        told: dict[str, Any] = {
            **AS_ASKED,
            "prompt": painting.prompt,
            "negative_prompt": painting.negative_prompt if self.is_guided(painting.guidance) else None,
            self._guidance_name(understood): painting.guidance,
            "num_inference_steps": painting.steps,
            "num_images_per_prompt": len(painting.seeds),
            "generator": [torch.Generator().manual_seed(seed) for seed in painting.seeds],
            "width": width,
            "height": height,
            "max_area": width * height,
            "output_type": "pt",
        }
        if "image" in understood:
            told |= self._shown(painting, understood)
        return {name: value for name, value in told.items() if name in understood}

    def _shown(self, painting: Painting, understood: Mapping[str, Any]) -> dict[str, Any]:
        """The pictures that a pipeline is told of: canvas, mask and references."""
        width, height = painting.size
        # 128, mid-grey, all of it selected, stands for no canvas.
        canvas, mask = Image.new("RGB", (width, height), (128, 128, 128)), Image.new("L", (width, height), 255)
        if painting.source is not None:
            canvas = Image.fromarray(painting.source.pixels)
            mask = Image.fromarray((painting.source.coverage > 0).astype("uint8") * 255)
        pictures = [Image.fromarray(pixels) for pixels in painting.references]
        if "strength" not in understood and "mask_image" not in understood and pictures:
            return {"image": pictures if len(pictures) > 1 else pictures[0]}
        strength = painting.strength if painting.source is not None else 1.0
        if not of_flow(self.scheduler_config):  # the others round up
            strength = min(1.0, max(strength, (1 + 1e-6) / painting.steps))
        return {"image": canvas, "mask_image": mask, "strength": strength}

    def _guidance_name(self, understood: Mapping[str, Any]) -> str:
        """What a pipeline calls the guidance: those of models that may be distilled have two words for it."""
        config: Any = self.parts["transformer"].config if self.parts.has("transformer") else {}
        of_its_own = "true_cfg_scale" in understood and not config.get("guidance_embeds")
        return "true_cfg_scale" if of_its_own else "guidance_scale"

    def _small(self, latents: Tensor, cells: tuple[int, int]) -> Tensor:
        """Small pictures [B, 3, h, w] of the pipeline's latents; grey, if it keeps them in a way that nobody knows."""
        height, width = cells
        latents = _without_time(latents)
        if latents.ndim == 3 and latents.shape[1] == (height // 2) * (width // 2):
            latents = unpack(latents, height, width)
        colours = self._projection()
        if latents.ndim != 4 or colours is None or latents.shape[1] != len(colours.weight):
            return latents.new_zeros(len(latents), 3, height, width)
        return (latents.movedim(1, -1) @ colours.weight + colours.bias).movedim(-1, 1)

    def _projection(self) -> LatentToRGB | None:
        """The colours of this model's latents, if its VAE is one that encodes pictures."""
        if self._colours is None and hasattr(self.parts["vae"] if self.parts.has("vae") else None, "encode"):
            self._colours = LatentToRGB.of(self._latents_of, self.device.torch_device)
        return self._colours

    def _latents_of(self, pictures: Tensor) -> Tensor:
        """The latents [B, C, h, w] of pictures [B, 3, H, W], as a denoiser sees them."""
        vae = self.parts["vae"]
        pictures = pictures.to(vae.dtype)
        of_films = any(isinstance(module, nn.Conv3d) for module in vae.modules())
        said = vae.encode(pictures[:, :, None] if of_films else pictures)
        latents = _without_time(said.latent_dist.mode() if hasattr(said, "latent_dist") else said[0]).float()
        if vae.config.get("latents_mean") is not None:
            mean, deviation = (latents.new_tensor(vae.config[name]) for name in ("latents_mean", "latents_std"))
            latents = (latents - mean[:, None, None]) / deviation[:, None, None]
        shifted: Tensor = latents - (vae.config.get("shift_factor") or 0.0)
        return shifted * (vae.config.get("scaling_factor") or 1.0)


class _Closed:
    """A class of transformers or diffusers whose `from_pretrained` runs nothing that lies beside a model."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def from_pretrained(self, folder: Any, **options: Any) -> Any:
        return self.cls.from_pretrained(folder, trust_remote_code=False, **options)


def read_index(source: Source) -> dict[str, Any]:
    """What `model_index.json` says of the pipeline and its parts.

    Raises `BadFiles`.
    """
    if not isinstance(source, FolderSource):
        raise BadFiles("a model of this family is a folder, not a single file")
    try:
        index: Any = json.loads((source.folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFiles(f"model_index.json: {type(error).__name__}") from error
    if not isinstance(index, dict):
        raise BadFiles("model_index.json must hold one object")
    return index


def pipeline_class(name: Any) -> Any:
    """The pipeline of diffusers called `name`.

    Raises `BadFiles` if there is none, or if it makes anything else than pictures of words.
    """
    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(cls, type) or not issubclass(cls, diffusers.DiffusionPipeline):
        raise BadFiles(f"diffusers {diffusers.__version__} has no pipeline {name!r}, and no other program is run")
    missing = [argument for argument in NEEDED if argument not in _arguments_of(cls)]
    if missing or "num_frames" in _arguments_of(cls):
        raise BadFiles(f"{name} does not make pictures of words")
    return cls


def component_class(library: str, name: str) -> Any:
    """The class of a part: of diffusers, one of its pipelines, or transformers.

    Raises `BadFiles` if it is anything else.
    """
    known = library in ("diffusers", "transformers")
    module: Any = importlib.import_module(library) if known else getattr(diffusers.pipelines, library, None)
    cls = getattr(module, name, None)
    if not isinstance(cls, type) or cls.__module__.partition(".")[0] not in ("diffusers", "transformers"):
        raise BadFiles(f"it wants {library}.{name}, which neither diffusers nor transformers has")
    return cls


LEFT_OUT = frozenset({"scheduler", "safety_checker"})
"""Parts that have no files, and that judge."""


def _named(index: Mapping[str, Any], left_out: Collection[str] = LEFT_OUT) -> dict[str, tuple[str, str]]:
    """Library and class of each part that the index says is there."""
    parts = {name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")}
    for name, value in parts.items():
        if len(value) != 2 or not all(word is None or isinstance(word, str) for word in value):
            raise BadFiles(f"model_index.json: {name} must be a library and a class")
    return {name: (value[0], value[1]) for name, value in parts.items() if name not in left_out and all(value)}


def _arguments_of(cls: Any) -> Mapping[str, Any]:
    return inspect.signature(cls.__call__).parameters


def _blames(scheduler: Any, error: Exception) -> bool:
    """Whether something went wrong inside a scheduler, or on the way to it: pipelines look first at what it takes."""
    if isinstance(error, AttributeError) and error.obj in (scheduler, scheduler.config):
        return True
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    inside = any(frame.f_locals.get("self") is scheduler for frame in frames)
    return inside or any(frame.f_code.co_name == "retrieve_timesteps" for frame in frames)


def _scale(pipeline: Any) -> int:
    """Pixels along each side of a latent cell."""
    return int(getattr(pipeline, "vae_scale_factor", 1))


def _without_time(tensor: Tensor) -> Tensor:
    return tensor[:, :, 0] if tensor.ndim == 5 else tensor


FAMILY = Classic
