"""The offline verifier: proves from exported files alone who approved what for where. No server, no Django."""
