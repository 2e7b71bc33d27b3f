"""The offline verifier: checks exported files alone, and says what they prove. It needs no server and no Django."""
