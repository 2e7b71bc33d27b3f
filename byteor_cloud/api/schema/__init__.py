"""The OpenAPI document: what drf-spectacular does not know by itself, read from what views declare."""
