"""All writes of this app, one module for each kind of resource."""
