"""Commands and metrics for the operators of an installation, and dead letters. Has no models."""
