"""The first start of a Krita: open a document, so that shaders are compiled, and go."""

from krita import Krita


def play(stage):
    application = Krita.instance()
    document = application.createDocument(64, 64, "settle", "RGBA", "U8", "", 72.0)
    application.activeWindow().addView(document)
    yield 3
