"""The console at /admin, which people use in the browser. It may import all other apps."""
