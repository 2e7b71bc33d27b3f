"""The offline verifier, which checks exported evidence and ledgers. It needs neither a server nor Django."""
