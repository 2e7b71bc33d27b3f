"""For each module of commands, one invocation of each command, in the world that the module's function fills."""
