"""Operation of the installation: commands, metrics, and the worker's jobs in the console. No models."""
