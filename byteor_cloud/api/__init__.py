"""What several domains need of HTTP: parsing, declarations, problems, pagination, the OpenAPI document."""
