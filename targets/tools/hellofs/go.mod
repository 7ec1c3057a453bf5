module bk.invalid/hellofs

go 1.24

tool bazil.org/fuse/examples/hellofs

require (
	bazil.org/fuse v0.0.0-20230120002735-62a210ff1fd5 // indirect
	golang.org/x/sys v0.4.0 // indirect
)
