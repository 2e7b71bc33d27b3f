"""The rules for migrations that are newer than the last release.

A server of the last release must work on the schema of the next one, and a migration must not stall a live service.
"""
