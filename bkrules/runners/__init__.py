"""How each kind of action runs."""
