"""The functions that read and change this app's data, one module for each kind of resource."""
