"""The commands of bk, a module for those that belong together: each adds its arguments, and runs them."""
