"""Signing keys, approval credentials, deploy bundles and signed statements, and their verification."""
