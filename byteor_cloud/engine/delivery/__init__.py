"""Signed delivery: keys, credentials, deploy bundles, and everything an agent refuses."""
