"""One run of `bk build`: the request, the analysis, the selection, the execution."""
