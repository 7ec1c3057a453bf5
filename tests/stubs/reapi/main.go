// Command reapi encodes messages of the Remote Execution API with the stubs that its authors publish.
//
// A line of the standard input is the name of a message, a space, and the message as JSON; the answer is a line with its bytes in
// hexadecimal.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"strings"

	_ "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	_ "google.golang.org/protobuf/types/known/durationpb"
)

const limit = 64 << 20

func message(name string) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return kind.New().Interface(), nil
}

func encode(name, text string) (string, error) {
	found, err := message(name)
	if err != nil {
		return "", err
	}
	if err := protojson.Unmarshal([]byte(text), found); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(found)
	return hex.EncodeToString(data), err
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, limit)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		answer, err := encode(name, text)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintln(out, answer)
		if err := out.Flush(); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}
