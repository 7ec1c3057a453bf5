// Command sign-fixtures makes the keys and signatures that BuildKit's tests look for in $BUILDKIT_TEST_SIGN_FIXTURES:
//
//	sign-fixtures FOLDER USER...
//
// As git-gpg-sign and git-ssh-sign it is git's program that signs, with gpg or ssh-keygen and the key of the user of that folder
// whom the settings of git name. Source: hack/fixtures of BuildKit's sources.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"
)

const artifact = "http payload for detached signature verification"

const settings = `[gpg]
	format = %s
[gpg %q]
	program = git-%s-sign
[user]
	signingkey = %s
	name = Test Git %s
	email = %s
[commit]
	gpgsign = true
`

func main() {
	log.SetFlags(0)
	var err error
	switch filepath.Base(os.Args[0]) {
	case "git-gpg-sign":
		err = signWithGPG(os.Args[1:])
	case "git-ssh-sign":
		err = signWithSSH(os.Args[1:])
	default:
		for _, user := range os.Args[2:] {
			if err = makeUser(os.Args[1], user); err != nil {
				break
			}
		}
	}
	if err != nil {
		log.Fatalf("%s: %s", os.Args[0], err)
	}
}

func makeUser(folder, user string) error {
	email := user + "@example.com"
	entity, err := openpgp.NewEntity(user+" Test User", "", email, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		return err
	}
	var public, private, signature bytes.Buffer
	if err := armored(&private, openpgp.PrivateKeyType, func(w *bytes.Buffer) error { return entity.SerializePrivate(w, nil) }); err != nil {
		return err
	}
	if err := armored(&public, openpgp.PublicKeyType, func(w *bytes.Buffer) error { return entity.Serialize(w) }); err != nil {
		return err
	}
	// go-crypto reads 100 bytes at a time, and forgets what it has read beyond a key: a test has one after a key and a line feed.
	fill := strings.Repeat("\n", 99-public.Len()%100)
	public.WriteString(fill)
	if err := openpgp.ArmoredDetachSign(&signature, entity, strings.NewReader(artifact), nil); err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, email)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " " + email
	fingerprint := fmt.Sprintf("%X", entity.PrimaryKey.Fingerprint)
	for name, data := range map[string][]byte{
		"gpg.key":           private.Bytes(),
		"gpg.pub":           public.Bytes(),
		"gpg.gitconfig":     fmt.Appendf(nil, settings, "openpgp", "openpgp", "gpg", fingerprint, user, email),
		"http.artifact":     []byte(artifact),
		"http.artifact.asc": signature.Bytes(),
		"ssh.key":           pem.EncodeToMemory(block),
		"ssh.pub":           []byte(line + "\n"),
		"ssh.gitconfig":     fmt.Appendf(nil, settings, "ssh", "ssh", "ssh", line, user, email),
	} {
		if err := os.WriteFile(filepath.Join(folder, user+"."+name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func armored(to *bytes.Buffer, kind string, write func(*bytes.Buffer) error) error {
	var plain bytes.Buffer
	if err := write(&plain); err != nil {
		return err
	}
	encoder, err := armor.Encode(to, kind, nil)
	if err != nil {
		return err
	}
	if _, err := encoder.Write(plain.Bytes()); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	return to.WriteByte('\n')
}

// signWithGPG runs gpg with a keyring of all keys.
func signWithGPG(words []string) error {
	home, err := os.MkdirTemp("/tmp", "gnupg") // $TMPDIR may be too long for the socket of gpg's agent
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	keys, err := filepath.Glob(filepath.Join(os.Getenv("BUILDKIT_TEST_SIGN_FIXTURES"), "*.gpg.key"))
	if err != nil {
		return err
	}
	usual := []string{"--homedir", home, "--batch", "--pinentry-mode", "loopback"}
	defer exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
	if err := run("gpg", nil, append(append(slices.Clone(usual), "--quiet", "--import"), keys...)...); err != nil {
		return err
	}
	return run("gpg", os.Stdout, append(usual, words...)...)
}

// signWithSSH runs ssh-keygen with a key in a file, where git, which has its public part, expects an agent: `-U`.
func signWithSSH(words []string) error {
	place := slices.Index(words, "-f") + 1
	if place == 0 || place == len(words) {
		return fmt.Errorf("no -f among %q", words)
	}
	public, err := os.ReadFile(words[place])
	if err != nil {
		return err
	}
	keys, err := filepath.Glob(filepath.Join(os.Getenv("BUILDKIT_TEST_SIGN_FIXTURES"), "*.ssh.pub"))
	if err != nil {
		return err
	}
	for _, path := range keys {
		known, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(known, bytes.TrimSpace(public)) {
			continue
		}
		key, err := os.ReadFile(strings.TrimSuffix(path, "pub") + "key")
		if err != nil {
			return err
		}
		folder, err := os.MkdirTemp("", "ssh")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		words[place] = filepath.Join(folder, "key")
		if err := os.WriteFile(words[place], key, 0o600); err != nil {
			return err
		}
		words = slices.DeleteFunc(words, func(word string) bool { return word == "-U" })
		return run("ssh-keygen", os.Stdout, words...)
	}
	return fmt.Errorf("no key for %q", public)
}

func run(name string, out *os.File, words ...string) error {
	command := exec.Command(name, words...)
	command.Stdin, command.Stderr = os.Stdin, os.Stderr
	if out != nil {
		command.Stdout = out
	}
	return command.Run()
}
