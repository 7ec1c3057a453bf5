"""The package //tests/stubs: messages as the authors of their protocols encode them, to compare with."""

from bkrules import go_binary

go_binary(name = "reapi", mod = "reapi/go.mod", srcs = ["reapi/main.go"])
