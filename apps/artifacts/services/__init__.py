"""The services of this app, which contain all of its writes."""
