"""The database engine. Django finds it by the name of this package."""
