module bk.invalid/xattrs

go 1.26.8
