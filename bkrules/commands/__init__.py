"""The commands of bk, in a module for each group: each adds its arguments, and runs them."""
