"""Analysis: targets become actions. Each target's rule is called once, after those of its dependencies."""
