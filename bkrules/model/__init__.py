"""Values that every other part shares: labels, digests, rules, actions and their keys."""
