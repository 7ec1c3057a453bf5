module bk.invalid/mount.fuse3

go 1.26.8
