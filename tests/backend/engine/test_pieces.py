"""Large products, a piece at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional
from underpaint_backend.engine import pieces
from underpaint_backend.engine.device import use_onednn
from underpaint_backend.engine.pieces import attention_in_pieces, copied, in_pieces


class Between:
    """Counts the pieces."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is calculated here needs several."""
    monkeypatch.setattr(pieces, "PIECE", 1e9)


@pytest.fixture(params=[True, False], ids=["onednn", "without"])
def with_or_without(request: pytest.FixtureRequest) -> Iterator[bool]:
    """oneDNN, which the ladder leaves where memory is short."""
    use_onednn(request.param)
    yield request.param
    use_onednn(True)


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_linear_layer_is_as_the_whole(bias: bool) -> None:
    """Piece by piece, the same comes out."""
    torch.manual_seed(0)
    layer, between = nn.Linear(1024, 1536, bias), Between()
    inputs = torch.randn(3, 400, 1024)
    with torch.inference_mode():
        expected = layer(inputs)
        undo = in_pieces(layer, between)
        torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)
        assert between.calls > 1
        undo()
    assert "forward" not in layer.__dict__


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("with_or_without")
def test_a_convolution_of_many_channels_is_as_the_whole(bias: bool, stride: int) -> None:
    """With more weights than the picture has numbers, some channels at a time, all the same comes out."""
    torch.manual_seed(0)
    is_as_the_whole(nn.Conv2d(640, 643, 3, stride, 1, bias=bias), torch.randn(2, 640, 16, 24))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (1, 1, 0), (3, 2, 1), (4, 2, 0), ((3, 1), 1, 1)])
@pytest.mark.usefixtures("with_or_without")
def test_a_convolution_is_as_the_whole(kernel: int | tuple[int, int], stride: int, padding: int) -> None:
    """In strips of the picture, the same comes out, at its borders, too."""
    torch.manual_seed(0)
    is_as_the_whole(nn.Conv2d(96, 128, kernel, stride, padding), torch.randn(2, 96, 200, 210))


def is_as_the_whole(layer: nn.Conv2d, inputs: torch.Tensor) -> None:
    """Fails unless a convolution needs several pieces, and they are as the whole."""
    between = Between()
    with torch.inference_mode():
        expected = layer(inputs)
        in_pieces(layer, between)
        torch.testing.assert_close(layer(inputs), expected, rtol=1e-4, atol=1e-5)
    assert between.calls > 1


def test_attention_is_as_the_whole() -> None:
    """Some queries at a time, with and without a mask."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 1500, 64)
    mask = torch.randn(1, 1, 1500, 1500)
    attention = functional.scaled_dot_product_attention
    for given in (None, mask, mask[..., :1, :]):
        between, expected = Between(), attention(query, key, value, given)
        with attention_in_pieces(between):
            found = functional.scaled_dot_product_attention(query, key, value, given)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert between.calls > 1
    assert functional.scaled_dot_product_attention is attention


CONVOLVE = """
import resource, psutil, torch
from torch import nn
from underpaint_backend.engine import pieces
from underpaint_backend.engine.device import use_onednn
from underpaint_backend.engine.pieces import in_pieces
torch.set_num_threads(1)
use_onednn(False)
layer, inputs = nn.Conv2d(64, 3, 3, padding=1), torch.randn(1, 64, 256, 256)
with torch.inference_mode():
    layer(inputs[..., :8, :8])
    if {pieces}:
        in_pieces(layer, lambda: None)
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + (64 << 20),) * 2)
    try:
        print(tuple(layer(inputs).shape))
    except RuntimeError as error:
        print("you tried to allocate" in str(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
@pytest.mark.parametrize(("pieces", "said"), [(True, "(1, 3, 256, 256)"), (False, "True")])
def test_a_convolution_without_onednn_needs_little_memory(pieces: bool, said: str) -> None:
    """A picture of 17 MB becomes columns of 151 MB as a whole, but not in strips, whatever few weights it has."""
    run = subprocess.run([sys.executable, "-c", CONVOLVE.format(pieces=pieces)], capture_output=True, text=True)
    assert run.stdout.strip() == said, run.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_large_tensor_is_converted_as_the_whole(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece, the same numbers come out, however the precision is named; what needs no copy gets none."""
    monkeypatch.setattr(pieces, "COPIED", 1000)
    torch.manual_seed(0)
    tensor, between = torch.randn(37, 131).to(torch.float16), Between()
    for converted in (
        copied(between, tensor, dtype),
        copied(between, tensor, "cpu", dtype),
        copied(between, tensor, device="cpu", dtype=dtype),
        copied(between, tensor, torch.empty(0, dtype=dtype)),
    ):
        assert torch.equal(converted, tensor.to(dtype))
        assert converted.dtype == dtype
    assert between.calls == 4 * 5

    assert copied(between, tensor, torch.float16) is tensor
    assert between.calls == 4 * 5


def test_what_is_laid_out_otherwise_is_converted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transposed tensor, or one that is to be laid out in a certain way, is left to torch."""
    monkeypatch.setattr(pieces, "COPIED", 10)
    pictures, between = torch.randn(2, 3, 4, 5), Between()

    transposed = copied(between, pictures.mT, torch.float64)
    channels_last = copied(between, pictures, torch.float64, memory_format=torch.channels_last)

    assert transposed.stride() == pictures.mT.to(torch.float64).stride()
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    assert between.calls == 0
