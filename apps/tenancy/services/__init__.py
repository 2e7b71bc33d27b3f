"""The functions that read and change this app's data."""
