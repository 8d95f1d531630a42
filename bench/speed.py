"""Our loop beside the classic pipelines at full size: FLUX.1 and FLUX.2 klein 4B with random weights, 1024², 4 steps.

Both sides get the same transformer, the same embeddings and the same noise, and make clean latents; neither reads a
prompt nor decodes. Ours does all else that a job does: it can be cancelled in each block and done again with less
memory, and shows a preview of each step. They run in turns. Besides the eager transformer there is a row for each way
to make it faster that leaves the latents as they are: other attention backends, and compiled blocks, which call no
hooks and so can be cancelled only between steps. A way that does not work here has its error in its row; an eager
transformer that does not work, or makes other latents than the classic pipeline, fails the bench. Without a CUDA device
nothing is measured, and that is said; `--tiny` runs the same code on tiny models anywhere, which says nothing of speed.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
)
from report import Figure, show
from torch import Tensor, nn
from underpaint_backend.engine.cancel import watching
from underpaint_backend.engine.denoise import Step
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.families import Embedding
from underpaint_backend.engine.families.flux1 import Flux1
from underpaint_backend.engine.families.flux2 import Flux2
from underpaint_backend.engine.flow import pack
from underpaint_backend.engine.ladder import Ladder
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.painting import Observer, Painting, paint_latents
from underpaint_backend.engine.parts import Parts
from underpaint_backend.engine.preview import LatentToRGB
from underpaint_backend.engine.sources import Source
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.previews import Previews
from underpaint_protocol.messages import Model

MOST_DIFFERENCE = 2e-2
"""Of the final latents, in bfloat16, from those of the eager transformer: beyond it a way to be faster is no use."""
EAGER = "eager"
BLOCKS = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4


@dataclass(frozen=True)
class Subject:
    """A model at full size, and the two sides. Each makes latents [1, C, h, w] from the noise of the same seed."""

    name: str
    transformer: Any
    ours: Callable[[], Tensor]
    classic: Callable[[], Tensor]


def main() -> None:
    """Measure both models and print the larger ratio of the eager rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not (torch.cuda.is_available() or arguments.tiny):
        print("speed: not measured, as there is no CUDA device here")
        return
    show(measure(arguments.rounds, arguments.steps, arguments.side, arguments.tiny), arguments.json)


@torch.inference_mode()
def measure(rounds: int, steps: int, side: int, tiny: bool = False) -> Figure:
    """A row for each model and each way to run its transformer.

    Raises `RuntimeError` if the latents of both sides differ with the eager transformer, and whatever else it raises.
    """
    rows: list[dict[str, object]] = []
    worst = 0.0
    for make in (flux1, flux2):
        subject = make(steps, side, tiny)
        eager = subject.ours()
        for way, switched in ways(subject.transformer, compiled=not tiny):
            try:
                with switched:
                    ratio, row = compared(subject, eager, rounds)
            except Exception as error:  # what a machine lacks, as a package or a compiler, is said and no failure
                if way == EAGER:
                    raise  # it lacks nothing there, and its ratio is the figure
                rows.append({"model": subject.name, "transformer": way, "ratio": _first_line(error)})
                continue
            rows.append({"model": subject.name, "transformer": way, **row})
            worst = max(worst, ratio) if way == EAGER else worst
        del subject
        torch.cuda.empty_cache()
    return Figure("speed", worst, "x", "<= 1.02", rows)


def ways(transformer: Any, compiled: bool) -> Iterator[tuple[str, contextlib.AbstractContextManager[None]]]:
    """How the transformer can be run, each to be entered before and left after."""
    yield EAGER, contextlib.nullcontext()
    for backend in ("_native_cudnn", "_native_flash", "flash", "sage"):
        yield f"attention: {backend}", _attention(transformer, backend)
    if compiled:
        yield "compiled blocks", _compiled(transformer)


@contextlib.contextmanager
def _attention(transformer: Any, backend: str) -> Iterator[None]:
    transformer.set_attention_backend(backend)
    try:
        yield
    finally:
        transformer.set_attention_backend("native")


@contextlib.contextmanager
def _compiled(transformer: Any) -> Iterator[None]:
    transformer.compile_repeated_blocks(fullgraph=True)
    yield


def compared(subject: Subject, eager: Tensor, rounds: int) -> tuple[float, dict[str, object]]:
    """The ratio of the medians of our seconds and the classic pipeline's, and the row. One round warms both up."""
    seconds: dict[str, list[float]] = {"ours": [], "classic": []}
    sides = {"ours": subject.ours, "classic": subject.classic}
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            _wait()
            began = time.perf_counter()
            made = sides[name]()
            _wait()
            if number:
                seconds[name].append(time.perf_counter() - began)
            far = float((made - eager).norm() / eager.norm())
            if not far <= MOST_DIFFERENCE:
                raise RuntimeError(f"its latents are {far:.3f} from the eager ones")
    ours, classic = (statistics.median(seconds[name]) for name in ("ours", "classic"))
    return ours / classic, {"ours, s": ours, "classic, s": classic, "ratio": ours / classic}


def flux1(steps: int, side: int, tiny: bool) -> Subject:
    """FLUX.1 schnell's transformer, 12 billion weights."""
    small = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 32}
    transformer = _random(FluxTransformer2DModel, small if tiny else {})
    vae = AutoencoderKL(latent_channels=16, shift_factor=0.1, **_blocks())
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    device, dtype = transformer.device, transformer.dtype
    text = torch.randn(1, 256, transformer.config.joint_attention_dim, device=device, dtype=dtype)
    gist = torch.randn(1, transformer.config.pooled_projection_dim, device=device, dtype=dtype)
    parts = {"text_encoder": None, "tokenizer": None, "text_encoder_2": None, "tokenizer_2": None}
    pipeline = FluxPipeline(transformer=transformer, vae=vae, scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    model = _model("flux1", Flux1, InMemory({"transformer": transformer, "vae": vae}, scheduler), (text, gist))
    painting = _painting(side, steps, guidance=0.0)
    noise = _noise(model, painting)

    def classic() -> Tensor:
        packed: Tensor = pipeline(
            prompt_embeds=text,
            pooled_prompt_embeds=gist,
            latents=pack(noise).to(dtype),
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=0.0,
            output_type="latent",
        ).images
        unpacked: Tensor = pipeline._unpack_latents(packed, side, side, pipeline.vae_scale_factor)
        return unpacked.float()

    return Subject(model.description.name, transformer, _loop(model, painting), classic)


def flux2(steps: int, side: int, tiny: bool) -> Subject:
    """FLUX.2 klein 4B's transformer."""
    real = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
    small = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 48}
    transformer = _random(Flux2Transformer2DModel, {**(small if tiny else real), "guidance_embeds": False})
    vae = AutoencoderKLFlux2(**_blocks()).to(transformer.device, transformer.dtype).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    device, dtype = transformer.device, transformer.dtype
    text = torch.randn(1, 512, transformer.config.joint_attention_dim, device=device, dtype=dtype)
    parts = {"text_encoder": None, "tokenizer": None, "is_distilled": True}
    pipeline = Flux2KleinPipeline(transformer=transformer, vae=vae, scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    model = _model("flux2", Flux2, InMemory({"transformer": transformer, "vae": vae}, scheduler), (text,))
    painting = _painting(side, steps, guidance=1.0)
    noise = _noise(model, painting)

    def classic() -> Tensor:
        made: list[Tensor] = []

        def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            made[:] = [tensors["latents"]]
            return {}

        pipeline(
            prompt_embeds=text,
            latents=noise.to(dtype),
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
            callback_on_step_end=keep,
        )
        return made[0].movedim(1, 2).reshape(noise.shape).float()

    return Subject(model.description.name, transformer, _loop(model, painting), classic)


def _loop(model: LoadedModel, painting: Painting) -> Callable[[], Tensor]:
    """Our side: what a worker does of a job between its prompt and its pictures."""
    previews = Previews(Outbox(BytesIO()))

    def on_step(step: Step) -> None:
        previews.show("job", step.number, model.projection(step.x0))

    def ours() -> Tensor:
        with watching(model.family.parts.residency, Event()):
            return paint_latents(model, painting, Observer(lambda phase: None, on_step))

    return ours


def _painting(side: int, steps: int, guidance: float) -> Painting:
    return Painting((side, side), "", "", guidance, "euler", steps, strength=1.0, seeds=(1,))


def _noise(model: LoadedModel, painting: Painting) -> Tensor:
    """What our side begins with."""
    generators = [torch.Generator().manual_seed(seed) for seed in painting.seeds]
    return model.family.noise(generators, painting.size)


class InMemory(Source):
    """A model whose networks are there already, without text encoders."""

    def __init__(self, networks: dict[str, Any], scheduler: Any) -> None:
        self._networks = networks
        self._configs: dict[str, dict[str, Any]] = {name: dict(part.config) for name, part in networks.items()}
        self._configs["scheduler"] = {**scheduler.config, "_class_name": type(scheduler).__name__}

    def has(self, name: str) -> bool:
        return name in self._networks

    def config(self, name: str) -> dict[str, Any]:
        return self._configs[name]

    def network(self, name: str, cls: Any, dtype: torch.dtype) -> nn.Module:
        found = self._networks[name]
        fitting: nn.Module = found if found.dtype == dtype else found.to(dtype)
        return fitting.eval()

    def unread(self, name: str, cls: Any, dtype: torch.dtype) -> None:
        return None

    def tokenizer(self, name: str, cls: Any) -> Any:
        raise KeyError(name)

    def weight_bytes(self, name: str) -> int:
        return 0  # they need no more room than they have

    def weight_files(self, name: str) -> list[Path]:
        return []

    def quantised_bytes(self, name: str) -> int:
        return 0

    def quantised_network(
        self, name: str, cls: Any, dtype: torch.dtype, device: torch.device, *, waits: bool
    ) -> nn.Module:
        raise KeyError(name)

    def anonymous(self, words: str) -> str:
        return words

    def identity(self, name: str) -> Hashable:
        return id(self._networks[name])

    def state(self) -> Hashable:
        return tuple(self._networks)


def _model(family_name: str, cls: Any, source: InMemory, prompt: Embedding) -> LoadedModel:
    """A model as a library has it, but that every prompt is this one."""
    family: Any = cls(Parts(source, open_device(), cls.NETWORKS))
    family.scheduler_config, family.vae_config = source.config("scheduler"), source.config("vae")
    family.takes_guidance = family.fills = family.is_redux = family.is_kontext = False
    family.is_distilled = True
    family.encode_prompt = lambda text: prompt
    projection = LatentToRGB.of(family.encode, family.device.torch_device)
    description = Model(
        id=family_name,
        name={"flux1": "FLUX.1 schnell", "flux2": "FLUX.2 klein 4B"}[family_name],
        family=family_name,
        tasks=("text_to_image",),
        schedulers=("euler",),
        native_area=1 << 20,
        size_multiple=family.size_multiple,
        default_steps=4,
        default_guidance=1.0,
        default_scheduler="euler",
    )
    return LoadedModel(description, family, projection, Ladder(family.parts), family.latent_scale, takes_mask=False)


def _random(cls: Any, config: dict[str, Any]) -> Any:
    """A transformer with random weights, made on the device in the precision in which it runs."""
    device = open_device()
    dtype = device.dtype_for("bfloat16")
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device.torch_device:
            torch.manual_seed(0)
            return cls(**config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(kept)


def _blocks() -> dict[str, Any]:
    """An autoencoder that divides sides by 8, as small as can be: only how to preview is learnt of it."""
    down, up = BLOCKS
    return {"down_block_types": down, "up_block_types": up, "block_out_channels": (32, 32, 32, 32)}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:100]


if __name__ == "__main__":
    main()
