"""Tiny Stable Diffusion models with random weights: those of the parity bench."""

from __future__ import annotations

from parities.tiny_unet import add_ip_adapter, build_tiny, build_tiny_xl, described

__all__ = ["add_ip_adapter", "build_tiny", "build_tiny_xl", "described"]
