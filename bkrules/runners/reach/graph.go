package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// A node is a declaration of a tested package.
type node struct {
	number  int
	unit    *unit
	syntax  ast.Node
	text    string
	line    int
	isRoot  bool // it counts for every test
	uses    []*node
	listed  []*node // functions that it hands to the harness, which calls one of them by its name
	methods []*node // of a type
	whole   string  // why a test that reaches it has the whole binary in its key
	lines   bool    // it may ask for lines
	runs    bool    // it runs the harness
}

// A receiver is a method, and the name of its type.
type receiver struct {
	of     string
	method *node
}

// declare makes the nodes of a file.
func (s *suite) declare(u *unit, file *ast.File, name string, embeds bool) {
	isTest := strings.HasSuffix(name, "_test.go")
	add := func(syntax ast.Node, isRoot bool, names ...string) *node {
		text := &bytes.Buffer{}
		must(printer.Fprint(text, s.fset, syntax))
		n := &node{number: len(s.nodes), unit: u, syntax: syntax, isRoot: isRoot || !isTest}
		n.text = fmt.Sprintf("%s %s %T\n%s\n", u.path, name, syntax, text) // its kind, since `a b` may be a variable or a type
		n.line = s.fset.Position(syntax.Pos()).Line
		s.nodes = append(s.nodes, n)
		for _, one := range names {
			if one == "_" || one == "init" {
				n.isRoot = true
				continue
			}
			s.byName[u.path+"."+one] = n
		}
		return n
	}
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d, d.Name.Name == "TestMain", d.Name.Name)
				continue
			}
			var of types.Type
			if method, ok := u.info.Defs[d.Name].(*types.Func); ok {
				of = method.Signature().Recv().Type()
			}
			name := typeName(of)
			n := add(d, name == "", name+"."+d.Name.Name)
			s.receivers = append(s.receivers, receiver{u.path + "." + name, n})
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			if d.Tok == token.CONST { // what iota is depends on the others
				var names []string
				for _, spec := range d.Specs {
					for _, ident := range spec.(*ast.ValueSpec).Names {
						names = append(names, ident.Name)
					}
				}
				n := add(d, false, names...)
				n.isRoot = !isTest
				continue
			}
			for _, spec := range d.Specs {
				switch one := spec.(type) {
				case *ast.TypeSpec:
					add(one, false, one.Name.Name)
				case *ast.ValueSpec:
					var names []string
					for _, ident := range one.Names {
						names = append(names, ident.Name)
					}
					add(one, embeds || len(one.Values) > 0, names...)
				}
			}
		}
	}
}

// typeName returns the name of the type of a receiver.
func typeName(t types.Type) string {
	if t == nil {
		return ""
	}
	if pointer, ok := types.Unalias(t).(*types.Pointer); ok {
		t = pointer.Elem()
	}
	if named, ok := types.Unalias(t).(*types.Named); ok {
		return named.Origin().Obj().Name()
	}
	return ""
}

// node returns the declaration of an object, if it is one of a tested package.
func (s *suite) node(object types.Object) *node {
	if object == nil || object.Pkg() == nil {
		return nil
	}
	path := object.Pkg().Path()
	if function, ok := object.(*types.Func); ok {
		if receiver := function.Origin().Signature().Recv(); receiver != nil {
			return s.byName[path+"."+typeName(receiver.Type())+"."+function.Name()]
		}
	}
	if object.Parent() == nil || object.Parent() != object.Pkg().Scope() {
		return nil
	}
	return s.byName[path+"."+object.Name()]
}

var (
	asksForLines = map[string]bool{
		"runtime.Caller": true, "runtime.Callers": true, "runtime.CallersFrames": true, "runtime.Stack": true, "runtime.FuncForPC": true,
		"runtime/debug.Stack": true, "runtime/debug.PrintStack": true, "log.Lshortfile": true, "log.Llongfile": true,
		"log/slog.AddSource": true, "log/slog.Source": true, "log/slog.Record": true,
	}
	reachesAll = map[string]bool{
		"os.Args": true, "os.Executable": true, "flag.Set": true, "flag.Lookup": true, "flag.CommandLine": true,
		"flag.Visit": true, "flag.VisitAll": true, "testing.MainStart": true, "testing.Main": true, "testing.RunTests": true,
		"plugin.Open": true, "testing.RunExamples": true, "testing.RunBenchmarks": true,
	}
	namesTests = regexp.MustCompile(`test\.(run|list|skip|bench|fuzz)|/proc/(self|[%0-9]+|thread-self)/(exe|maps|mem|map_files|cmdline)`)
)

// connect adds the edges.
func (s *suite) connect() {
	for _, one := range s.receivers {
		n := one.method
		if of := s.byName[one.of]; of != nil {
			if _, ok := of.syntax.(*ast.TypeSpec); ok {
				of.methods = append(of.methods, n)
				n.uses = append(n.uses, of)
				continue
			}
		}
		n.isRoot = true // a type of another name, or of another package
	}
	flow := newFlow(s)
	for _, n := range s.nodes {
		imports := map[string]bool{}
		ast.Inspect(n.syntax, func(at ast.Node) bool {
			switch one := at.(type) {
			case *ast.Ident:
				s.use(n, one, imports, flow)
			case *ast.BasicLit:
				if one.Kind == token.STRING && namesTests.MatchString(one.Value) {
					s.unclear(n, "it has the text "+one.Value, one.Pos())
				}
			}
			return true
		})
		for _, name := range sorted(imports) {
			n.text += "import " + name + "\n"
		}
	}
}

func (s *suite) use(n *node, ident *ast.Ident, imports map[string]bool, flow *flow) {
	object := n.unit.info.Uses[ident]
	if object == nil {
		return
	}
	if name, ok := object.(*types.PkgName); ok {
		imports[name.Name()+" "+name.Imported().Path()] = true
		return
	}
	if target := s.node(object); target != nil {
		if target != n {
			if flow.listed[ident] {
				n.listed = append(n.listed, target)
			} else {
				n.uses = append(n.uses, target)
			}
		}
		return
	}
	if object.Pkg() == nil {
		return
	}
	name := object.Pkg().Path() + "." + object.Name()
	if reachesAll[name] {
		s.unclear(n, "it uses "+name, ident.Pos())
	}
	n.lines = n.lines || asksForLines[name]
}

// unclear notes why a test that reaches a declaration has the whole binary in its key, and where.
func (s *suite) unclear(n *node, why string, at token.Pos) {
	if n.whole == "" {
		place := s.fset.PositionFor(at, false)
		n.whole = fmt.Sprintf("%s (%s:%d)", why, filepath.Base(place.Filename), place.Line)
	}
}

// reached returns what begins with these declarations, with those among the listed ones that `also` says.
func (s *suite) reached(begin []*node, also func(*node) bool) []*node {
	found := map[*node]bool{}
	waiting := append([]*node{}, begin...)
	for _, n := range s.nodes {
		if n.isRoot {
			waiting = append(waiting, n)
		}
	}
	for len(waiting) > 0 {
		n := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if found[n] {
			continue
		}
		found[n] = true
		waiting = append(waiting, n.uses...)
		waiting = append(waiting, n.methods...)
		for _, one := range n.listed {
			if also(one) {
				waiting = append(waiting, one)
			}
		}
	}
	var nodes []*node
	for n := range found {
		nodes = append(nodes, n)
	}
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].number < nodes[j].number })
	return nodes
}

// digest returns the digest of declarations and of the rest, or why there is none.
func (s *suite) digest(nodes []*node) (string, string) {
	lines := s.lines
	for _, n := range nodes {
		lines = lines || n.lines
		if n.whole != "" {
			return "", n.whole
		}
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %s", len(s.rest), s.rest)
	for _, n := range nodes {
		fmt.Fprintf(hash, "%d %s", len(n.text), n.text)
		if lines {
			fmt.Fprintf(hash, "line %d\n", n.line)
		}
	}
	return fmt.Sprintf("%x", hash.Sum(nil)), ""
}

// digests returns the digest of each test that has one.
func (s *suite) digests() map[string]string {
	tests := map[string][]*node{}
	var names []string
	hasMain := false
	for _, n := range s.nodes {
		d, ok := n.syntax.(*ast.FuncDecl)
		if !ok || d.Recv != nil || !strings.HasPrefix(d.Name.Name, "Test") {
			continue
		}
		if d.Name.Name == "TestMain" {
			hasMain = true
			continue
		}
		names = append(names, d.Name.Name)
		tests[d.Name.Name] = append(tests[d.Name.Name], n)
	}
	if hasMain { // it has the list of all tests
		s.rest += fmt.Sprintf("tests %s\n", strings.Join(names, " "))
	}
	found := map[string]string{}
	keep := func(name string, begin []*node, also func(*node) bool) {
		digest, why := s.digest(s.reached(begin, also))
		if why != "" {
			fmt.Printf("the key of %s has the whole binary: %s\n", name, why)
			digest = whole(why)
		}
		found[name] = digest
	}
	for name, nodes := range tests {
		if len(nodes) == 1 {
			keep(name, nodes, func(*node) bool { return true })
		} else {
			found[name] = whole("the package and its tests from outside have two tests of this name")
		}
	}
	for _, one := range s.onHarness(tests) {
		begin := append([]*node{tests[one.entry][0]}, one.functions...)
		keep(one.entry+"+"+one.name, begin, func(n *node) bool { return slices.Contains(one.functions, n) })
	}
	return found
}
