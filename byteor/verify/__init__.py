"""The offline verifier, which checks evidence, ledgers and releases. It needs neither a server nor Django."""
