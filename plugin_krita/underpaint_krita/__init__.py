"""Underpaint's plugin for Krita. Importing it inside Krita registers the docker, and does nothing else."""

try:
    from krita import DockWidgetFactory, DockWidgetFactoryBase, Krita
except ImportError:
    pass  # Outside Krita: the tests use the modules that need neither Krita nor Qt.
else:
    from .docker import UnderpaintDocker

    Krita.instance().addDockWidgetFactory(
        DockWidgetFactory("underpaint", DockWidgetFactoryBase.DockPosition.DockRight, UnderpaintDocker)
    )
