"""The cases, one module for each group; some have more than one file, which their group's module imports."""
