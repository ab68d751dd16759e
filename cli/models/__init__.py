"""Models by name: the registry, opening one, fetching one."""
