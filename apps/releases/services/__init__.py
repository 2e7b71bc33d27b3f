"""The services of this app, which do every write. There is one module for each noun."""
