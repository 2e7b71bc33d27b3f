"""HTTP code that the apps share: parsing, declarations, problems, pagination, and the OpenAPI document."""
