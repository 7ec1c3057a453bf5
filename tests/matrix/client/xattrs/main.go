// Command xattrs prints the extended attributes of files as JSON: file to name to value, in hexadecimal digits.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
)

const longest = 1 << 16 // the kernel's limit of a value and of a list of names

func main() {
	shown := map[string]map[string]string{}
	for _, path := range os.Args[1:] {
		found, err := attributes(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "xattrs: %s: %v\n", path, err)
			os.Exit(1)
		}
		shown[path] = found
	}
	if err := json.NewEncoder(os.Stdout).Encode(shown); err != nil {
		fmt.Fprintf(os.Stderr, "xattrs: %v\n", err)
		os.Exit(1)
	}
}

func attributes(path string) (map[string]string, error) {
	found := map[string]string{}
	buffer := make([]byte, longest)
	size, err := syscall.Listxattr(path, buffer)
	if err != nil {
		return nil, err
	}
	for _, name := range strings.FieldsFunc(string(buffer[:size]), func(one rune) bool { return one == 0 }) {
		value := make([]byte, longest)
		size, err := syscall.Getxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found[name] = hex.EncodeToString(value[:size])
	}
	return found, nil
}
