"""The database engine, which Django finds by the name of this package."""
