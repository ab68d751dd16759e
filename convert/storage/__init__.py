"""How the weights of a source lie in its files, one file for each format, and how they are read and unpacked."""
