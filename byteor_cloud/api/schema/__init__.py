"""Extensions of drf-spectacular that complete the OpenAPI document from the declarations of the views."""
