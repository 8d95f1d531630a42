"""The language that Underpaint's plugin and daemon speak. See SPEC.md beside this package."""

__version__ = "0.1.0"
