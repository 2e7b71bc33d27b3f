"""The DRF kernel: problems, parsing, pagination, schema. It knows no model."""
