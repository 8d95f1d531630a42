"""Training of `primer-inpaint`, the tiny inpainting model that ships with Underpaint."""
