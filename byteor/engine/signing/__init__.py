"""Signed delivery: signing keys, approval credentials, deploy bundles and their verification by agents."""
