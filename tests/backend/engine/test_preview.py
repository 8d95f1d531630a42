"""Latents as small pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from underpaint_backend.engine.library import LoadedModel
from underpaint_backend.engine.preview import LatentToRGB, drawn_pictures

CPU = torch.device("cpu")


def linear_encoder(pictures: Tensor) -> Tensor:
    """A VAE that only averages, mixes and shifts colours: its latents hold them completely."""
    cells = functional.avg_pool2d(pictures, 8)
    mixed = torch.stack([cells[:, 0] - cells[:, 1], cells[:, 1] + 0.5 * cells[:, 2], 3 * cells[:, 2] + 0.2], dim=1)
    return torch.cat([mixed, torch.zeros_like(mixed[:, :1])], dim=1)


def test_colours_that_are_in_the_latents_come_out() -> None:
    """Where latents are a linear function of the colours, the projection inverts it, also beside an empty channel."""
    projection = LatentToRGB.of(linear_encoder, CPU)
    picture = drawn_pictures(1, 64, seed=5)

    shown = projection(linear_encoder(picture))

    wanted = (functional.avg_pool2d(picture, 8)[0].movedim(0, -1) + 1) * 127.5
    assert projection.fit > 0.9999
    assert shown.dtype is torch.uint8
    assert shown.shape == (1, 8, 8, 3)
    assert float((shown[0].float() - wanted).abs().max()) <= 1


def test_many_channels_are_fitted_to_more_than_the_pictures_that_were_seen() -> None:
    """With 128 channels at a sixteenth, as FLUX.2 has them, other pictures come out nearly as well."""
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(128, 3, 16, 16, generator=draw)

    def encode(pictures: Tensor) -> Tensor:
        return functional.conv2d(pictures, weight, stride=16).mul(0.4).sin()  # which colours do not go through whole

    projection = LatentToRGB.of(encode, CPU)
    others = drawn_pictures(8, 128, seed=7)
    wanted = functional.avg_pool2d(others, 16).movedim(1, -1)
    missed = (encode(others).movedim(1, -1) @ projection.weight + projection.bias - wanted).square().sum()
    explained = float(1 - missed / (wanted - wanted.mean((0, 1, 2))).square().sum())
    assert explained > 0


def test_the_projection_is_fitted_to_the_loaded_vae(tiny_plain: LoadedModel) -> None:
    """The fit of a real VAE, even of one that was never trained, is the best linear one."""
    pictures = drawn_pictures(8, 128, seed=0)
    with torch.inference_mode():
        latents = tiny_plain.family.encode(pictures).movedim(1, -1)
    wanted = functional.interpolate(pictures, size=latents.shape[1:3], mode="area").movedim(1, -1)
    projection = tiny_plain.projection

    def missed(weight: Tensor) -> float:
        return float((latents @ weight + projection.bias - wanted).square().mean())

    assert 0 < projection.fit <= 1
    for seed in range(5):
        nudge = torch.randn(projection.weight.shape, generator=torch.Generator().manual_seed(seed)) * 1e-2
        assert missed(projection.weight) <= missed(projection.weight + nudge)


def test_values_beyond_the_range_are_cut() -> None:
    """Latents far outside give black and white, not colours that wrapped around."""
    projection = LatentToRGB(torch.eye(3), torch.zeros(3), fit=1.0)
    latents = torch.tensor([[-50.0, 0.0, 50.0]]).reshape(1, 3, 1, 1)

    assert projection(latents).flatten().tolist() == [0, 128, 255]


def test_drawn_pictures_are_in_range_and_repeatable() -> None:
    """Pictures for the fit lie in -1..1, have many colours, and are the same each time."""
    pictures = drawn_pictures(4, 32, seed=1)

    assert pictures.shape == (4, 3, 32, 32)
    assert -1 <= float(pictures.min()) < -0.5
    assert 0.5 < float(pictures.max()) <= 1
    assert torch.equal(pictures, drawn_pictures(4, 32, seed=1))
