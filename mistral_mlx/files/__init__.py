"""Reads untrusted files, such as those of a model: confined paths, bounded JSON, headers; writes whole ones."""
