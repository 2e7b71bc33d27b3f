"""The services of this app: every write, in one module for each noun."""
