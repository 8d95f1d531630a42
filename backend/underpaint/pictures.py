"""From a photograph and a mask to a request, and from a finished picture back into the photograph. Needs Pillow."""

from underpaint_backend.pictures import BadPicture, Order, changing, inpainting, lay_over, open_picture, referring

__all__ = ["BadPicture", "Order", "changing", "inpainting", "lay_over", "open_picture", "referring"]
