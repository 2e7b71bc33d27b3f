"""ByteOr Cloud: a self-hosted control plane for real-time data pipelines."""

from byteor import __version__  # the service requires exactly this version of byteor

__all__ = ["__version__"]
