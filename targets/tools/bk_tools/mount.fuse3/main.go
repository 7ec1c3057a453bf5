// Command mount.fuse3 mounts a FUSE file system for containerd, which calls it as
//
//	mount.fuse3 SOURCE TARGET -o OPTIONS -t COMMAND
//
// and waits for its end. The one of libfuse hands COMMAND to a shell; a cell has
// no shell. As that one does for root, this one allows devices and setuid files.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if err := mount(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mount.fuse3:", err)
		os.Exit(1)
	}
}

func mount(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: mount.fuse3 SOURCE TARGET -o OPTIONS -t COMMAND, but got %q", arguments)
	}
	target, options, command := arguments[1], "dev,suid", ""
	for rest := arguments[2:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) == 1 {
			return fmt.Errorf("%q needs a value", rest[0])
		}
		switch rest[0] {
		case "-o":
			options += "," + rest[1]
		case "-t":
			command = rest[1]
		default:
			return fmt.Errorf("unknown option %q", rest[0])
		}
	}
	path, err := exec.LookPath(command)
	if err != nil {
		return err
	}
	// It returns when the file system is mounted, and serves it in the background.
	return syscall.Exec(path, []string{command, "-o", options, target}, os.Environ())
}
