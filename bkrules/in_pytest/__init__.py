"""bk in pytest: `pytest --bk-worker=oci` has the cells of matrices as its items."""
