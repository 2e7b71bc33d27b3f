"""How the installation is run: its commands, its metrics, and the worker's jobs in the console. No models."""
