"""Models by name: registers, opens and fetches them."""
