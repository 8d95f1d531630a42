"""Underpaint from your own program:

    import asyncio, underpaint

    async def main():
        async with underpaint.connect() as client:
            request = underpaint.Request("primer-inpaint", "text_to_image", 256, 256, prompt="a red heart")
            async for event in client.generate(request):
                print(event)

    asyncio.run(main())

`connect` speaks to the daemon of this machine, or to the one whose address and token it is given. What a picture is
made of, `image_of` makes from pixels. `Client.paint` is for who wants nothing but the finished pictures.
"""

from underpaint_backend.client import Client, Refused, connect
from underpaint_protocol import __version__
from underpaint_protocol.client import Event, Picture
from underpaint_protocol.errors import ErrorInfo
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    TERMINAL,
    Accepted,
    Cancelled,
    Done,
    Error,
    Failed,
    Image,
    Model,
    Position,
    Preview,
    Progress,
    Request,
    Started,
    Welcome,
)

__all__ = [
    "TERMINAL",
    "Accepted",
    "Cancelled",
    "Client",
    "Done",
    "Error",
    "ErrorInfo",
    "Event",
    "Failed",
    "Image",
    "Model",
    "Picture",
    "Position",
    "Preview",
    "Progress",
    "Refused",
    "Request",
    "Started",
    "Welcome",
    "__version__",
    "connect",
    "image_of",
]
