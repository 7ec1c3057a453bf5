"""A client of HTTP/1.1 in which every wait and every size has a limit."""
