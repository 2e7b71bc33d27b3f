"""The content of the console's pages of artifacts, replays and bisects."""
