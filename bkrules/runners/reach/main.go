// Reach says what each test of a Go test binary reaches, as empty files whose names say it: TEST/DIGEST.
//
// Usage: reach FOLDER SALT GO LIST-ARGUMENT...
//
// The digest of a test covers the salt, the go.mod, the compiled code of every dependency, all files of the package that are
// no tests, what runs at each start, and of its test files the declarations that the test reaches. On BuildKit's harness, a
// function among those that the harness lists has a digest too: ENTRY+NAME, where NAME is the harness's name for it.
//
// ENTRY+ stands for all other names. When something may reach code in a way that declarations do not show, the key of a test
// has the whole binary: the name in the place of its digest is "whole", a space and the reason, with "%" and "/" as "%25" and
// "%2F". A file with such a name next to the folders is the reason for all tests. Reasons are printed too.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

const fields = "ImportPath,Name,Dir,Export,BuildID,Standard,GoFiles,CgoFiles,CFiles,CXXFiles,MFiles,HFiles,FFiles,SFiles," +
	"SwigFiles,SwigCXXFiles,SysoFiles,EmbedFiles,Imports,ImportMap,Module,Error,DepsErrors"

// A Package is what `go list` says of one.
type Package struct {
	ImportPath, Name, Dir, Export, BuildID                                                       string
	Standard                                                                                     bool
	GoFiles, CgoFiles, CFiles, CXXFiles, MFiles, HFiles, FFiles, SFiles, SwigFiles, SwigCXXFiles []string
	SysoFiles, EmbedFiles, Imports                                                               []string
	ImportMap                                                                                    map[string]string
	Module                                                                                       *Module
	Error                                                                                        *struct{ Err string }
	DepsErrors                                                                                   []*struct{ Err string }
}

// A Module is what `go list` says of the module of a package.
type Module struct {
	Main    bool
	GoMod   string
	Version string
	Replace *Module
}

// Unclear is why nothing can be left out of a key.
type unclear string

func (why unclear) Error() string { return string(why) }

func main() {
	out, salt, list := os.Args[1], os.Args[2], os.Args[3:]
	found, err := reach(salt, list)
	if err != nil {
		fmt.Println("every key has the whole binary:", err)
		why, isUnclear := err.(unclear)
		if !isUnclear { // it may name a place of the machine
			why = "the program that looks for less has failed; the log of the build has its output"
		}
		must(os.WriteFile(filepath.Join(out, whole(string(why))), nil, 0o644))
		return
	}
	for name, digest := range found { // a test that reaches more has the digest "whole"
		folder := filepath.Join(out, name)
		must(os.MkdirAll(folder, 0o755))
		must(os.WriteFile(filepath.Join(folder, digest), nil, 0o644))
	}
}

// whole returns the name of a file that says why a key has the whole binary.
func whole(why string) string {
	name := "whole " + strings.NewReplacer("%", "%25", "/", "%2F").Replace(strings.ToValidUTF8(why, "?"))
	for len(name) > longest {
		runes := []rune(name)
		name = string(runes[:len(runes)-1])
	}
	return name
}

const longest = 250

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func reach(salt string, list []string) (found map[string]string, err error) {
	defer func() {
		if problem := recover(); problem != nil { // code that this program does not know must not fail a build
			found, err = nil, fmt.Errorf("%v", problem)
		}
	}()
	packages, err := listed(list)
	if err != nil {
		return nil, err
	}
	s, err := suiteOf(packages)
	if err != nil {
		return nil, err
	}
	if err := s.checkDependencies(); err != nil {
		return nil, err
	}
	s.rest, err = s.restOf(salt)
	if err != nil {
		return nil, err
	}
	for _, p := range s.tested {
		if err := s.load(p); err != nil {
			return nil, err
		}
	}
	s.connect()
	return s.digests(), nil
}

// listed returns the packages of the test binary, compiled.
func listed(list []string) ([]*Package, error) {
	last := len(list) - 1
	words := append([]string{"list"}, list[1:last]...) // -C must be first
	words = append(words, "-test", "-deps", "-export", "-json="+fields, list[last])
	command := exec.Command(list[0], words...)
	command.Stderr = os.Stderr
	data, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []*Package
	for decoder := json.NewDecoder(bytes.NewReader(data)); ; {
		p := &Package{}
		if err := decoder.Decode(p); err == io.EOF {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		if p.Error != nil || len(p.DepsErrors) > 0 {
			return nil, unclear(p.ImportPath + " has errors")
		}
		packages = append(packages, p)
	}
}

// A suite is a test binary: the package `target`, its tested variants, and its dependencies.
type suite struct {
	target    string
	byPath    map[string]*Package
	tested    []*Package // with test files: the package itself, then NAME_test
	others    []*Package
	fset      *token.FileSet
	rest      string
	lines     bool // code of the module that helps tests asks for the lines of its callers
	harness   string
	flow      *flow
	units     []*unit
	nodes     []*node
	byName    map[string]*node // PATH.NAME and PATH.TYPE.METHOD
	receivers []receiver
}

func suiteOf(packages []*Package) (*suite, error) {
	s := &suite{byPath: map[string]*Package{}, fset: token.NewFileSet(), byName: map[string]*node{}}
	for _, p := range packages {
		s.byPath[p.ImportPath] = p
	}
	for _, p := range packages {
		if name, ok := strings.CutSuffix(p.ImportPath, ".test"); ok && p.Name == "main" && s.byPath[name] != nil {
			s.target = name
		}
	}
	if s.target == "" {
		return nil, unclear("go list names no test binary")
	}
	variant := " [" + s.target + ".test]"
	for _, path := range []string{s.target + variant, s.target + "_test" + variant} {
		if p := s.byPath[path]; p != nil {
			s.tested = append(s.tested, p)
		}
	}
	for _, p := range packages {
		own := p.ImportPath == s.target+".test" || p.ImportPath == s.target && s.byPath[s.target+variant] != nil
		for _, q := range s.tested {
			own = own || p == q
		}
		if !own {
			s.others = append(s.others, p)
		}
	}
	for _, p := range s.tested {
		for _, files := range [][]string{p.CgoFiles, p.CFiles, p.CXXFiles, p.MFiles, p.HFiles, p.FFiles, p.SFiles, p.SwigFiles,
			p.SwigCXXFiles, p.SysoFiles} {
			if len(files) > 0 {
				return nil, unclear(files[0] + " is not plain Go")
			}
		}
	}
	return s, nil
}

// checkDependencies looks for code outside of the package that reaches into it by names.
func (s *suite) checkDependencies() error {
	symbol := "/" + s.target
	symbol = symbol[strings.LastIndex(symbol, "/")+1:] + "·"
	for _, p := range s.others {
		if p.Standard {
			continue
		}
		isOwn := p.Module != nil && (p.Module.Main || p.Module.Replace != nil && p.Module.Replace.Version == "")
		helps := isOwn && slices.Contains(p.Imports, "testing")
		for _, name := range p.GoFiles {
			data, err := os.ReadFile(filepath.Join(p.Dir, name))
			if filepath.IsAbs(name) {
				data, err = os.ReadFile(name)
			}
			if err != nil {
				return err
			}
			if bytes.Contains(data, []byte("go:linkname")) && bytes.Contains(data, []byte(s.target)) {
				return unclear("it depends on " + p.ImportPath + ", which has a linkname and names the package: " + filepath.Base(name))
			}
			if bytes.Contains(data, []byte("test.run")) && !isHarness(p.ImportPath) {
				return unclear("it depends on " + p.ImportPath + ", which speaks of test.run: " + filepath.Base(name))
			}
			s.lines = s.lines || helps && bytes.Contains(data, []byte("runtime.Caller"))
		}
		for _, name := range p.SFiles {
			data, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return err
			}
			if bytes.Contains(data, []byte(symbol)) {
				return unclear("it depends on " + p.ImportPath + ", which has assembly that names the package: " + filepath.Base(name))
			}
		}
	}
	return nil
}

// restOf returns all that every test of the binary has in its key, besides declarations.
func (s *suite) restOf(salt string) (string, error) {
	text := &strings.Builder{}
	fmt.Fprintf(text, "salt %s\n", salt)
	for _, p := range s.others {
		if p.Standard || p.ImportPath == "unsafe" {
			continue // the salt has the toolchain
		}
		content := p.BuildID[strings.LastIndex(p.BuildID, "/")+1:]
		if content == "" {
			return "", unclear("go list has no build id of " + p.ImportPath)
		}
		fmt.Fprintf(text, "package %s %s\n", p.ImportPath, content)
	}
	for _, p := range s.tested {
		fmt.Fprintf(text, "tested %s\n", p.ImportPath)
		files := append([]string{}, p.EmbedFiles...)
		if p.Module != nil && p.Module.GoMod != "" {
			files = append(files, p.Module.GoMod)
		}
		for _, name := range files {
			path := name
			if !filepath.IsAbs(path) {
				path = filepath.Join(p.Dir, name)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(name) {
				name = filepath.Base(name) // no key has a place of the machine
			}
			fmt.Fprintf(text, "file %s %x\n", name, sha256.Sum256(data))
		}
	}
	return text.String(), nil
}

// A unit is one checked package.
type unit struct {
	path   string
	files  []*ast.File
	info   *types.Info
	types  *types.Package
	embeds []bool // by file
}

// load parses and checks a package, and makes a node of each declaration.
func (s *suite) load(p *Package) error {
	u := &unit{path: strings.Fields(p.ImportPath)[0], info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
	}}
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		directives, err := directivesOf(name, data)
		if err != nil {
			return err
		}
		if directives != "" {
			s.rest += fmt.Sprintf("source %s%s\n", name, directives)
		}
		u.embeds = append(u.embeds, strings.Contains(directives, "//go:embed"))
		file, err := parser.ParseFile(s.fset, path, data, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			if spec.Path.Value == `"unsafe"` || spec.Path.Value == `"C"` {
				return unclear(fmt.Sprintf("%s:%d imports %s", name, s.fset.Position(spec.Pos()).Line, spec.Path.Value))
			}
			if spec.Name != nil && spec.Name.Name == "." {
				s.rest += fmt.Sprintf("dot import %s %s\n", name, spec.Path.Value)
			}
		}
		u.files = append(u.files, file)
		if s.harness == "" {
			for _, path := range p.Imports {
				if isHarness(path) {
					s.harness, _, _ = strings.Cut(path, " ")
				}
			}
		}
	}
	imports := func(path string) (io.ReadCloser, error) {
		if mapped := p.ImportMap[path]; mapped != "" {
			path = mapped
		}
		found := s.byPath[path]
		if found == nil || found.Export == "" {
			return nil, fmt.Errorf("no compiled package %s", path)
		}
		return os.Open(found.Export)
	}
	config := types.Config{Importer: importer.ForCompiler(s.fset, "gc", imports)}
	checked, err := config.Check(u.path, s.fset, u.files, u.info)
	if err != nil {
		return fmt.Errorf("cannot check types: %w", err)
	}
	u.types = checked
	s.units = append(s.units, u)
	for i, file := range u.files {
		s.declare(u, file, p.GoFiles[i], u.embeds[i])
	}
	return nil
}

// directivesOf returns the comments of a file that mean something to Go.
func directivesOf(name string, data []byte) (string, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	found := ""
	for _, group := range file.Comments {
		for _, comment := range group.List {
			text := comment.Text
			switch {
			case strings.HasPrefix(text, "//line "), strings.HasPrefix(text, "/*line "), strings.HasPrefix(text, "//export "),
				strings.HasPrefix(text, "//go:linkname"), strings.HasPrefix(text, "//go:cgo"):
				return "", unclear(fmt.Sprintf("%s:%d has the directive %s", name, files.Position(comment.Pos()).Line, strings.Fields(text)[0]))
			case strings.HasPrefix(text, "//go:"):
				found += " " + text
			}
		}
	}
	return found, nil
}

func isHarness(path string) bool {
	path, _, _ = strings.Cut(path, " ")
	return strings.HasSuffix(path, "/util/testutil/integration")
}

func sorted[V any](found map[string]V) []string {
	var names []string
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
