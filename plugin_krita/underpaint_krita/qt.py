"""Qt for Python, whichever version Krita brings: PyQt5 in Krita 5, PyQt6 in Krita 6.

The rest of the plugin imports Qt from here alone, and writes enums in full (`QtCore.Qt.Key.Key_Return`), the form that
both know. Krita 6 refuses any import of PyQt5, so that is tried first and never mixed.
"""

try:
    from PyQt5 import QtCore, QtGui, QtWidgets
except ImportError:
    from PyQt6 import QtCore, QtGui, QtWidgets

__all__ = ["QtCore", "QtGui", "QtWidgets"]
