"""The reference agent: a client of the public API that verifies, runs and reports bundles, without Django."""
