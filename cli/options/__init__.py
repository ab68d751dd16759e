"""Options that commands share, and where their values come from."""
