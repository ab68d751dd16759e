"""``doctor``: what a bug report needs, and what is wrong. It changes nothing, and opens no connection."""
