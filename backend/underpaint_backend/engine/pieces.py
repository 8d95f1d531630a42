"""Large products on a CPU, and large copies, a piece at a time: a whole one can take seconds, and nobody can stop it.

What comes out is what comes out of the whole; sums may be rounded differently in the last bit, and always in the same
way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from .device import uses_onednn

Between: TypeAlias = Callable[[], None]
"""What is called before each piece."""

PIECE = 4e9
"""Floating-point operations of a piece: 40 to 100 ms of a core."""
LARGE = 1 << 20
"""Weights of a linear layer that makes large products; others are done before anybody has to wait."""
KERNEL = 1 << 10
"""Weights of a convolution that can take long, on a large picture."""
COLUMNS = 8 << 20
"""Bytes of what a convolution makes of its input without oneDNN, which is left where memory is short: each number as
often as its kernel has places."""

COPIED = 1 << 20
"""Numbers that are copied or converted at once: 3 to 25 ms, where the file that they are in has to be read for it, and
the system has to find the memory."""


def in_pieces(network: nn.Module, between: Between) -> Callable[[], None]:
    """Have large linear layers and convolutions of a network calculate piece by piece on a CPU, until it is undone.

    What undoes it does not keep the network alive.
    """
    changed: list[weakref.ref[nn.Module]] = []
    for module in network.modules():
        if "forward" in module.__dict__:  # somebody else has replaced it
            continue
        if type(module) is nn.Linear and module.weight.numel() >= LARGE:
            module.forward = partial(_linear, module, between)  # type: ignore[method-assign]
        elif type(module) is nn.Conv2d and _is_plain(module):
            module.forward = partial(_convolution, module, between)  # type: ignore[method-assign]
        else:
            continue
        changed.append(weakref.ref(module))

    def undo() -> None:
        for reference in changed:
            module = reference()
            if module is not None:
                del module.__dict__["forward"]

    return undo


@contextmanager
def attention_in_pieces(between: Between) -> Iterator[None]:
    """Within this context, torch's attention calculates piece by piece on a CPU.

    It is a function, without a module that could be told. Only for a process that does one thing at a time.
    """
    whole = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = partial(_attention, whole, between)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = whole


def copied(between: Between, tensor: Tensor, *where: Any, **how: Any) -> Tensor:
    """What `tensor.to(*where, **how)` returns."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.is_contiguous() and tensor.device.type != "meta"
    if tensor.numel() <= COPIED or not plain or tensor.requires_grad or "memory_format" in how:
        return tensor.to(*where, **how)
    wanted = tensor.new_empty(0).to(*where, **how)
    if (wanted.dtype, wanted.device) == (tensor.dtype, tensor.device):
        return tensor.to(*where, **how)
    made = torch.empty(tensor.shape, dtype=wanted.dtype, device=wanted.device)
    for begin, end in _ranges(tensor.numel(), tensor.numel() // COPIED + 1):
        between()
        made.view(-1)[begin:end] = tensor.view(-1)[begin:end]
    return made


def _linear(module: nn.Linear, between: Between, inputs: Tensor) -> Tensor:
    weight, bias = module.weight, module.bias
    count = _pieces(inputs, 2 * inputs.numel() * module.out_features, module.out_features)
    if count == 1:
        between()
        return functional.linear(inputs, weight, bias)
    output = inputs.new_empty(*inputs.shape[:-1], module.out_features, dtype=weight.dtype)
    for begin, end in _ranges(module.out_features, count):
        between()
        part = None if bias is None else bias[begin:end]
        output[..., begin:end] = functional.linear(inputs, weight[begin:end], part)
    return output


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether strips of a picture can be convolved alone."""
    zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return zeros and module.dilation == (1, 1) and module.weight.numel() >= KERNEL


def _convolution(module: nn.Conv2d, between: Between, inputs: Tensor) -> Tensor:
    kernel, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
    height = inputs.shape[-2]
    rows = (height + 2 * padding - kernel) // stride + 1
    cells = inputs.shape[0] * rows * (inputs.shape[-1] // module.stride[1])
    count = _strips(module, inputs, rows, cells) if inputs.dim() == 4 else 1
    if count == 1:
        return functional.conv2d(
            inputs, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
        )
    if _weighs_more(module, inputs):
        return _by_channels(module, between, inputs, count)
    output: Tensor | None = None
    for begin, end in _ranges(rows, count):
        between()
        top, bottom = begin * stride - padding, (end - 1) * stride - padding + kernel
        strip = inputs[..., max(0, top) : min(height, bottom), :]
        missing = (max(0, -top), max(0, bottom - height))
        if any(missing):
            strip = functional.pad(strip, (0, 0, *missing))
        sides = (0, int(module.padding[1]))
        made = functional.conv2d(strip, module.weight, module.bias, module.stride, sides, 1, module.groups)
        if output is None:
            output = made.new_empty(*made.shape[:2], rows, made.shape[-1])
        output[..., begin:end, :] = made
    assert output is not None
    return output


def _weighs_more(module: nn.Conv2d, inputs: Tensor) -> bool:
    """Whether a convolution has more weights than its picture numbers. oneDNN lays out both anew for each piece."""
    return uses_onednn() and module.groups == 1 and module.weight.numel() > inputs.numel()


def _by_channels(module: nn.Conv2d, between: Between, inputs: Tensor, count: int) -> Tensor:
    """A convolution, some channels of its output at a time."""
    parts = []
    for begin, end in _ranges(module.out_channels, min(count, module.out_channels)):
        between()
        bias = None if module.bias is None else module.bias[begin:end]
        weight = module.weight[begin:end]
        parts.append(functional.conv2d(inputs, weight, bias, module.stride, module.padding))
    return torch.cat(parts, dim=1)


def _strips(module: nn.Conv2d, inputs: Tensor, rows: int, cells: int) -> int:
    most = rows // 4
    count = _pieces(inputs, 2 * cells * module.weight.numel(), most)
    if inputs.device.type != "cpu" or uses_onednn():
        return count
    columns = cells * module.weight[0].numel() * inputs.element_size()
    return max(count, min(most, columns // COLUMNS + 1))


def _attention(
    whole: Callable[..., Tensor],
    between: Between,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **how: Any,
) -> Tensor:
    length = query.shape[-2]
    count = 1 if is_causal or dropout_p else _pieces(query, 4 * query.numel() * key.shape[-2], length)
    if count == 1:
        return whole(query, key, value, attn_mask, dropout_p, is_causal, **how)
    parts = []
    for begin, end in _ranges(length, count):
        between()
        one_for_all = attn_mask is None or attn_mask.shape[-2] == 1
        mask = attn_mask if one_for_all else attn_mask[..., begin:end, :]  # type: ignore[index]
        parts.append(whole(query[..., begin:end, :], key, value, mask, **how))
    return torch.cat(parts, dim=-2)


def _pieces(inputs: Tensor, operations: float, most: int) -> int:
    if inputs.device.type != "cpu" or operations <= PIECE:
        return 1
    return max(1, min(most, int(operations / PIECE) + 1))


def _ranges(length: int, count: int) -> Iterable[tuple[int, int]]:
    borders = [length * index // count for index in range(count + 1)]
    return pairwise(borders)
