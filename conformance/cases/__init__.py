"""The cases: those of a group are in the module of its name, and in others whose names begin with that."""
