"""The package `bilevelrl` itself: its version, and the path on which its folders are found.

Installed as `bilevelrl/__init__.py`; the folders at the root of the repository are its sub-packages.
"""

from importlib.metadata import version
from pkgutil import extend_path

__all__ = ["__version__"]

__path__ = extend_path(__path__, __name__)  # others may still add portions, as to a namespace package
__version__ = version("bilevelrl")
