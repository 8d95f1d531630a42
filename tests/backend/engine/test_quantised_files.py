"""Files with quantised weights: what is painted with them is near what is painted with the true ones, and not it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from numpy.typing import NDArray
from parities.tiny_flux1 import build_tiny_flux1
from parities.tiny_flux2 import build_tiny_flux2
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5EncoderModel
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.device import open_device
from underpaint_backend.engine.exceptions import BadFiles, ModelBroken
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.lora import LoraRack
from underpaint_backend.engine.packing import Packed, bytes_of
from underpaint_backend.engine.precision import Memory, Storage
from underpaint_backend.engine.quantisation import Quantised, filled
from underpaint_backend.engine.quantised_files import from_gguf, read_gguf_tensors
from underpaint_backend.engine.single_file import SingleFileSource
from underpaint_backend.models import recognise
from underpaint_backend.models.catalog import Entry, find_models
from underpaint_backend.models.folders import add_folder, folder_entries, sister_among
from underpaint_backend.models.gguf import PLAIN, QUANTISED, TYPES, read_gguf

from tests.backend.engine.test_quantisation import difference, opened, painted
from tests.backend.engine.test_single_file import FolderOnly, original_sd, without_weights
from tests.backend.engine.tiny import build_tiny
from tests.backend.models import gguf_files, original

pytestmark = pytest.mark.usefixtures("extras")

CPU = torch.device("cpu")


def write_gguf(path: Path, weights: Mapping[str, Tensor], kind: str, arch: str = "flux") -> Path:
    """A file as ComfyUI's converter writes it: layers quantised, the rest as numbers; by llama.cpp's own library.

    Where rows have no whole blocks, it lays weights out anew and notes their shapes.
    """
    import gguf

    wanted = gguf.GGMLQuantizationType[kind]
    block = TYPES[int(wanted)][1]
    writer = gguf.GGUFWriter(str(path), arch=arch)
    for name, value in weights.items():
        numbers = value.float().numpy()
        dtype = wanted if numbers.ndim > 1 and numbers.size % 256 == 0 else gguf.GGMLQuantizationType.F32
        if dtype == wanted and numbers.shape[-1] % block:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(numbers.shape))
            numbers = numbers.reshape(-1, 256)
        writer.add_tensor(name, gguf.quants.quantize(numbers, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# GGUF


@pytest.mark.parametrize("kind", [*QUANTISED, *PLAIN])
def test_numbers_are_restored_as_llama_cpp_restores_them(tmp_path: Path, kind: str) -> None:
    """Of any bytes in blocks, for every type that is read."""
    import gguf

    number = gguf_files.NUMBERS[kind]
    _, block, size = TYPES[number]
    columns, rows = max(256, block), 6
    data = np.random.default_rng(number).integers(0, 256, (rows, columns // block * size), dtype=np.uint8)
    if kind in PLAIN:
        data = gguf.quants.quantize(np.linspace(-1, 1, rows * columns, dtype=np.float32).reshape(rows, columns), number)
    else:
        scales = data.reshape(-1, size)  # scales that are numbers, wherever in a block they are
        scales[:, 0:4] = np.frombuffer(np.float16([0.01, 0.02]).tobytes(), dtype=np.uint8)
        scales[:, -4:] = scales[:, 0:4]
    path = gguf_files.write(tmp_path / "model.gguf", [gguf_files.Line("a", (rows, columns), kind)])
    header = read_gguf(path)
    with path.open("r+b") as file:
        file.seek(header.places["a"])
        file.write(data.tobytes())

    value = from_gguf(read_gguf_tensors(path, header, ["a"]))["a"]

    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(number)).reshape(rows, columns)
    found = value if isinstance(value, Tensor) else value.place(CPU, torch.float32).unpack()
    assert np.isfinite(expected).all()
    assert np.abs(expected).max() > 0
    # diffusers multiplies in half precision
    np.testing.assert_allclose(found.float().numpy(), expected, rtol=4e-3, atol=4e-3 * float(np.abs(expected).max()))


@pytest.fixture(scope="module")
def flux2(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A tiny FLUX.2 [klein] in diffusers' layout, which lends its text encoder and VAE."""
    return build_tiny_flux2(tmp_path_factory.mktemp("flux2") / "klein", "klein")[0]


@pytest.fixture(scope="module")
def tiny_pack(flux2: Entry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pack for models as small as the tiny one, for which there is none."""
    pack = without_weights(flux2.folder, tmp_path_factory.mktemp("packs") / "tiny")
    model = flux2.model
    defaults = {name: getattr(model, name) for name in ("family", "tasks", "native_area", "size_multiple")}
    defaults |= {f"default_{name}": getattr(model, f"default_{name}") for name in ("steps", "guidance", "scheduler")}
    (pack / "defaults.json").write_text(json.dumps(defaults))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(recognise._FLUX2_SIZES, (32, 48), ("tiny", "Tiny FLUX.2"))
        monkeypatch.setattr(recognise, "PACKS", pack.parent)
        yield pack


@pytest.fixture(scope="module")
def plain_flux2(flux2: Entry) -> tuple[LoadedModel, NDArray[np.uint8]]:
    """It, and what it paints with its own weights."""
    model = opened(flux2)
    return model, painted(model)


def transformer_of(folder: Path) -> dict[str, Tensor]:
    """The transformer's weights by diffusers' names."""
    (file,) = (folder / "transformer").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(("kind", "least", "most"), [("Q8_0", 0.01, 2.0), ("Q4_0", 0.2, 25.0)])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_gguf_file_in_an_added_folder_paints(
    flux2: Entry,
    plain_flux2: tuple[LoadedModel, NDArray[np.uint8]],
    tiny_pack: Path,
    tmp_path: Path,
    kind: str,
    least: float,
    most: float,
    prefix: str,
) -> None:
    """It is found by its header, borrows what it lacks, and paints nearly what the plain weights paint."""
    name = f"some-{kind}.gguf"
    (tmp_path / "ComfyUI" / "models" / "unet").mkdir(parents=True)
    weights = original.flux2(transformer_of(flux2.folder), prefix)
    path = write_gguf(tmp_path / "ComfyUI" / "models" / "unet" / name, weights, kind)
    contents = folder_entries(sister_among([flux2]), [tmp_path / "ComfyUI"])
    assert contents.broken == ()
    (entry,) = contents.entries
    assert (entry.model.state, entry.checkpoint, entry.folder) == ("ready", path, flux2.folder)
    assert entry.model.memory == pytest.approx(path.stat().st_size, rel=0.1)

    (plain, expected), model = plain_flux2, opened(entry)

    assert least < difference(painted(model), expected) < most
    parts = model.family.parts
    transformer: Any = parts["transformer"]
    assert sum(hasattr(layer, "packed_bytes") for layer in transformer.modules()) > 20
    assert parts.bytes_of("transformer") < bytes_of(plain.family.parts["transformer"]) * (0.4 if "8" in kind else 0.25)
    assert parts.residency.bytes == sum(bytes_of(parts[part]) for part in parts.names)


def test_a_worker_finds_a_gguf_file(
    flux2: Entry, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list that it looks a job's model up in."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    (tmp_path / "unet").mkdir()
    write_gguf(tmp_path / "unet" / "some.gguf", original.flux2(transformer_of(flux2.folder)), "Q8_0")
    add_folder(tmp_path / "unet")

    entry = find_models([flux2.folder.parent])["file/some"]

    assert painted(opened(entry)).shape == (1, 64, 64, 3)


def test_without_the_extra_a_gguf_file_is_listed_and_says_so(
    flux2: Entry, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words that install it; who loads it all the same is told so, too."""
    write_gguf(tmp_path / "some.gguf", original.flux2(transformer_of(flux2.folder)), "Q8_0")
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed

    (entry,) = folder_entries(sister_among([flux2]), [tmp_path]).entries

    assert entry.model.state == "unfit"
    assert entry.model.detail == (
        "its weights are in a GGUF file, for which there is a library; "
        "install it with: .venv/bin/pip install 'underpaint[gguf]'"
    )
    with pytest.raises(ModelBroken, match=r"underpaint\[gguf\]"):
        opened(replace(entry, folder=flux2.folder, pack=tiny_pack))


@pytest.fixture(scope="module")
def klein_gguf(flux2: Entry, tiny_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """The tiny FLUX.2 as a GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "some.gguf", original.flux2(transformer_of(flux2.folder)), "Q8_0")
    (entry,) = folder_entries(sister_among([flux2]), [folder]).entries
    return entry


@pytest.fixture(scope="module")
def filed(klein_gguf: Entry) -> tuple[LoadedModel, NDArray[np.uint8]]:
    """It, and what it paints."""
    model = opened(klein_gguf)
    return model, painted(model)


def test_a_gguf_model_wears_loras(filed: tuple[LoadedModel, NDArray[np.uint8]], tmp_path: Path) -> None:
    """The picture is another while it is worn, and the same to the bit before and after."""
    torch.manual_seed(5)
    layer = "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"
    rows = 3 * 32 + 2 * 96
    path = tmp_path / "strong.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.randn(2, 32), f"{layer}.lora_B.weight": torch.randn(rows, 2)}, path)
    model, before = filed
    parts = model.family.parts

    with LoraRack().worn("tiny", "flux2", parts, [(path, 1.0)]) as worn:
        parts.dress = worn.dress
        dressed = painted(model)
        parts.dress = None

    assert difference(dressed, before) > 1
    assert np.array_equal(painted(model), before)


def test_loading_a_gguf_file_is_cancelled(klein_gguf: Entry, filed: tuple[LoadedModel, NDArray[np.uint8]]) -> None:
    """While its tensors are read, and afterwards it is loaded as ever."""
    library, cancelled, reads = Library(open_device("cpu")), Event(), list[float]()

    def on_part(fraction: float) -> None:
        reads.append(fraction)
        if library.residency.reads == 2:  # the transformer is the last
            cancelled.set()

    with pytest.raises(Cancelled):
        library.load(klein_gguf, on_part, cancelled)
    assert library.residency.reads == 3

    assert np.array_equal(painted(library.load(klein_gguf, lambda fraction: None, Event())), filed[1])


@pytest.mark.parametrize(
    "memory", [Memory(precision="fp8"), Memory(precision="int8"), Memory(offload="group")], ids=repr
)
def test_what_a_file_has_quantised_is_not_packed_again(
    klein_gguf: Entry, filed: tuple[LoadedModel, NDArray[np.uint8]], memory: Memory
) -> None:
    """Whatever is chosen or memory asks for, the transformer's weights stay as they are; the text encoder's do not."""
    model = opened(klein_gguf, memory)

    parts = model.family.parts
    assert parts.key("transformer").storage == Storage.FILED
    assert parts.key("text_encoder").storage != Storage.PLAIN
    for layer, same in zip(parts["transformer"].modules(), filed[0].family.parts["transformer"].modules(), strict=True):
        assert getattr(layer, "packed_bytes", None) == getattr(same, "packed_bytes", None)
    assert difference(painted(model), filed[1]) < 5


def test_the_ladder_steps_over_it(klein_gguf: Entry) -> None:
    """Where memory is short, its rungs change what can be changed, and the picture is still made."""
    model = opened(klein_gguf)
    ladder, key = model.ladder, model.family.parts.key("transformer")

    assert ladder._pack(Storage.FP8)
    assert model.family.parts.key("transformer") == key
    assert painted(model).any()
    assert ladder._pack(Storage.FETCHED)
    assert model.family.parts.key("transformer") == key
    assert painted(model).any()


def test_a_file_that_was_cut_after_it_was_listed_is_broken(klein_gguf: Entry, tmp_path: Path) -> None:
    """The error has the file's name and not its path."""
    assert klein_gguf.checkpoint is not None
    path = tmp_path / "cut.gguf"
    path.write_bytes(klein_gguf.checkpoint.read_bytes()[:-100])

    with pytest.raises(ModelBroken, match=r"cut\.gguf: it is cut off: \d+ of its") as caught:
        opened(replace(klein_gguf, checkpoint=path))
    assert str(tmp_path) not in str(caught.value)


def test_a_transformer_that_lacks_weights_is_broken(flux2: Entry, tiny_pack: Path, tmp_path: Path) -> None:
    """Nothing is made up."""
    weights = original.flux2(transformer_of(flux2.folder))
    write_gguf(tmp_path / "some.gguf", {k: v for k, v in weights.items() if k != "txt_in.weight"}, "Q8_0")
    source = FolderOnly(tmp_path / "some.gguf", flux2.folder)

    with pytest.raises(BadFiles, match="a model of an unknown family"):
        source.quantised_network("transformer", FluxTransformer2DModel, torch.float32, CPU, waits=False)

    write_gguf(tmp_path / "some.gguf", {k: v for k, v in weights.items() if "single_blocks.1.linear2" not in k}, "Q8_0")
    (entry,) = folder_entries(sister_among([flux2]), [tmp_path]).entries
    with pytest.raises(ModelBroken, match=r"linear2|to_out"):
        opened(entry)


def test_a_transformer_of_flux1_is_converted(tmp_path: Path) -> None:
    """Of its real width, for diffusers' converter knows no other; one block of each kind is enough."""
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    model.save_config(tmp_path / "pack" / "transformer")
    shapes = {name: tuple(value.shape) for name, value in original.flux1(model.state_dict()).items()}
    lines = [
        gguf_files.Line(name, shape, "Q4_K" if len(shape) > 1 and shape[1] % 256 == 0 else "F16")
        for name, shape in shapes.items()
    ]
    path = gguf_files.write(tmp_path / "model.gguf", lines)
    header = read_gguf(path)
    marked = ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"]
    with path.open("r+b") as file:
        for index, name in enumerate(marked):
            file.seek(header.places[name])
            # a block of Q4_K: d, dmin, the first scale, and the first number
            file.write(np.float16([index + 1, 0]).tobytes() + bytes([1]) + bytes(11) + bytes([1]))

    source = FolderOnly(path, tmp_path / "pack")
    network: Any = source.quantised_network("transformer", FluxTransformer2DModel, torch.bfloat16, CPU, waits=False)

    def corner(layer: nn.Module) -> float:
        found: list[float] = []
        hook = layer.register_forward_pre_hook(lambda module, _: found.append(float(module.weight[0, 0])))
        layer(torch.zeros(1, layer.in_features, dtype=torch.bfloat16))
        hook.remove()
        return found[0]

    block, single = network.transformer_blocks[0], network.single_transformer_blocks[0]
    assert [corner(layer) for layer in (block.attn.to_q, block.attn.to_k)] == [1.0, 0.0]
    assert [corner(layer) for layer in (single.attn.to_q, single.proj_mlp)] == [2.0, 0.0]
    assert source.quantised_bytes("transformer") == pytest.approx(bytes_of(network), rel=1e-6)


def test_a_unet_is_read_with_its_kernels(tmp_path: Path) -> None:
    """Stable Diffusion's, bare and laid out anew as ComfyUI's converter does; kernels stay quantised."""
    folder = build_tiny(tmp_path / "sd", 4).folder
    prefix = "model.diffusion_model."
    bare = {k.removeprefix(prefix): v for k, v in original_sd(folder).items() if k.startswith(prefix)}
    path = write_gguf(tmp_path / "unet.gguf", bare, "Q8_0", "sd1")
    assert b"comfy.gguf.orig_shape." in path.read_bytes()

    source = SingleFileSource(path, folder, folder)
    unet: Any = source.quantised_network("unet", UNet2DConditionModel, torch.float32, CPU, waits=False)
    plain: Any = UNet2DConditionModel.from_pretrained(folder / "unet")

    kinds = {type(layer) for layer in unet.modules() if hasattr(layer, "packed_bytes")}
    assert kinds == {nn.Linear, nn.Conv2d}
    torch.manual_seed(0)
    width = plain.config.cross_attention_dim
    told = (torch.randn(1, 4, 16, 16), torch.tensor(500), torch.randn(1, 7, width))
    with torch.inference_mode():
        found, expected = unet(*told)[0], plain(*told)[0]
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.05


# Folders of diffusers' layout that were packed before


def in_nf4(network: nn.Module, nested: bool) -> dict[str, Tensor]:
    """The weights as bitsandbytes' layers write them."""
    from bitsandbytes.nn import Linear4bit

    def layer(old: nn.Linear) -> nn.Module:
        new = Linear4bit(old.in_features, old.out_features, old.bias is not None, torch.float32, nested, "nf4")
        new.load_state_dict(old.state_dict())
        return new

    return replaced(network, layer)


def in_8_bits(network: nn.Module) -> dict[str, Tensor]:
    """The same, in 8 bits."""
    from bitsandbytes.nn import Linear8bitLt

    def layer(old: nn.Linear) -> nn.Module:
        new = Linear8bitLt(old.in_features, old.out_features, old.bias is not None, has_fp16_weights=False)
        new.load_state_dict(old.state_dict())
        return new

    return replaced(network, layer)


def replaced(network: nn.Module, layer: Callable[[nn.Linear], nn.Module]) -> dict[str, Tensor]:
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, layer(module).to("cpu"))
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def packed_copy(entry: Entry, to: Path, part: str, cls: Any, how: str) -> Entry:
    """A copy of a model, one part of which is packed: "nf4", "nf4 nested", "int8" or "torchao"."""
    shutil.copytree(entry.folder, to)
    folder = to / part
    (file,) = folder.glob("*.safetensors")
    network = cls.from_pretrained(folder)
    notes: dict[str, str] = {}
    if how == "torchao":
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(network, Int8WeightOnlyConfig())
        weights, notes = flatten_tensor_state_dict(
            {k: v.detach() if type(v) is not Tensor else v for k, v in network.state_dict().items()}
        )
        config: dict[str, Any] = {"quant_method": "torchao", "quant_type": "int8wo"}
    else:
        weights = in_8_bits(network) if how == "int8" else in_nf4(network, "nested" in how)
        config = {"quant_method": "bitsandbytes", "load_in_8bit": how == "int8", "load_in_4bit": how != "int8"}
    weights.pop("encoder.embed_tokens.weight", None)  # tied, and stored once
    save_file(weights, file, metadata=notes | {"format": "pt"})
    described = json.loads((folder / "config.json").read_text()) | {"quantization_config": config}
    (folder / "config.json").write_text(json.dumps(described))
    return replace(entry, folder=to, model=replace(entry.model, id=to.name))


@pytest.fixture(scope="module")
def flux1(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A tiny FLUX.1 [schnell]."""
    return build_tiny_flux1(tmp_path_factory.mktemp("flux1") / "schnell", "schnell")


PACKED = {"nf4": (0.1, 15.0), "nf4 nested": (0.1, 15.0), "int8": (0.01, 1.0), "torchao": (0.01, 1.0)}


@pytest.fixture(scope="module")
def plain_flux1(flux1: Entry) -> tuple[LoadedModel, NDArray[np.uint8]]:
    """It, and what it paints with its own weights."""
    model = opened(flux1)
    return model, painted(model)


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
@pytest.mark.parametrize("how", PACKED)
def test_a_folder_that_was_packed_before_paints(
    flux1: Entry, plain_flux1: tuple[LoadedModel, NDArray[np.uint8]], tmp_path: Path, part: str, how: str
) -> None:
    """Nearly what the plain weights paint, on a CPU too; and it is not packed again."""
    cls = FluxTransformer2DModel if part == "transformer" else T5EncoderModel
    entry = packed_copy(flux1, tmp_path / "packed", part, cls, how)

    (plain, expected), model = plain_flux1, opened(entry)

    least, most = PACKED[how]
    assert (least if part == "transformer" else 0) < difference(painted(model), expected) < most
    parts = model.family.parts
    layers = [layer for layer in parts[part].modules() if hasattr(layer, "packed_bytes")]
    assert len(layers) > 10
    assert bytes_of(parts[part]) < 0.6 * bytes_of(plain.family.parts[part])
    assert parts.key(part).storage == Storage.FILED


def test_a_packing_that_is_not_read_is_named(flux1: Entry, tmp_path: Path) -> None:
    """And nothing is loaded."""
    entry = packed_copy(flux1, tmp_path / "packed", "transformer", FluxTransformer2DModel, "nf4")
    config = tmp_path / "packed" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))

    with pytest.raises(ModelBroken, match="packed by gptq, which is not read"):
        opened(entry)


@pytest.mark.parametrize(("how", "extra"), [("nf4", "bitsandbytes"), ("torchao", "torchao")])
def test_without_its_extra_a_packed_folder_says_so(
    flux1: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, extra: str
) -> None:
    """With the words that install it."""
    entry = packed_copy(flux1, tmp_path / "packed", "transformer", FluxTransformer2DModel, how)
    monkeypatch.setitem(sys.modules, extra, None)

    with pytest.raises(ModelBroken, match=rf"pip install 'underpaint\[{extra}\]'"):
        opened(entry)
    listed = find_models([tmp_path])[flux1.model.id].model
    assert listed.state == "unfit"
    assert f"its transformer is packed by {extra}" in listed.detail


def lying(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Tensor], str], None]:
    """Change what a state says of itself."""

    def lie(weights: dict[str, Tensor], name: str) -> None:
        key = f"{name}.quant_state.bitsandbytes__nf4"
        said = json.loads(bytes(weights[key].tolist()))
        change(said)
        weights[key] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)

    return lie


def shortened(ending: str) -> Callable[[dict[str, Tensor], str], None]:
    """Take away half of a tensor."""

    def lie(weights: dict[str, Tensor], name: str) -> None:
        weights[name + ending] = weights[name + ending].flatten()[: weights[name + ending].numel() // 2].clone()

    return lie


LIES: dict[str, Callable[[dict[str, Tensor], str], None]] = {
    "more numbers": lying(lambda said: said.update(shape=[1 << 20, 1 << 20])),
    "another shape": lying(lambda said: said.update(shape=[*said["shape"][::-1], 1])),
    "no shape": lying(lambda said: said.update(shape=None)),
    "blocks of 0": lying(lambda said: said.update(blocksize=0)),
    "larger blocks": lying(lambda said: said.update(blocksize=4096)),
    "smaller blocks": lying(lambda said: said.update(blocksize=32)),
    "no such type": lying(lambda said: said.update(dtype="nonsense")),
    "fewer numbers": shortened(""),
    "fewer scales": shortened(".absmax"),
    "fewer levels": shortened(".quant_map"),
    "no JSON": lambda weights, name: weights.update(
        {f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_state_that_lies_is_refused(
    flux1: Entry, tmp_path: Path, lie: Callable[[dict[str, Tensor], str], None]
) -> None:
    """Native code would believe it and read what is not there."""
    entry = packed_copy(flux1, tmp_path / "packed", "transformer", FluxTransformer2DModel, "nf4")
    (file,) = (tmp_path / "packed" / "transformer").glob("*.safetensors")
    weights = load_file(file)
    lie(weights, "transformer_blocks.0.ff.net.2.weight")
    save_file(weights, file)

    with pytest.raises(ModelBroken):
        opened(entry)


def test_a_weight_that_waits_comes_for_its_pass(tmp_path: Path) -> None:
    """On a device with memory of its own it takes nothing there between passes."""
    places: list[torch.device] = []

    def place(device: torch.device, dtype: torch.dtype) -> Packed:
        places.append(device)
        return Packed(64, lambda: torch.ones(8, 8, dtype=dtype))

    network = nn.Sequential(nn.Linear(8, 8, bias=False))
    weights = {"0.weight": Quantised((8, 8), place)}
    filled("some", network, weights, torch.float32, CPU, waits=True)

    assert (places, network[0].packed_bytes) == ([], 0)
    assert torch.equal(network(torch.ones(1, 8)), torch.full((1, 8), 8.0))
    assert places == [CPU]
