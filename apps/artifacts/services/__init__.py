"""The services that write this app's models."""
