module bk.invalid/silo

go 1.26.8
