"""Diffusion models at work: families of models, one denoising loop, previews and cancelling."""
