"""Signed delivery: keys, credentials, deploy bundles, and everything an agent refuses (contracts §4, §5)."""
