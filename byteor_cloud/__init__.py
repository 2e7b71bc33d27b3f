"""ByteOr Cloud: a self-hosted control plane for real-time data pipelines."""

__version__ = "0.1.0"
