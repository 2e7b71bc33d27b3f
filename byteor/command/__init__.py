"""The command ``byteor``: the API for people in a terminal and for scripts."""
