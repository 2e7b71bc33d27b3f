"""Commands, metrics and dead letters for the operators of an installation. Has no models."""
