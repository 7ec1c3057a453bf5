package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// A flow is how functions get to BuildKit's harness: `Run` calls those whose names -test.run has, and no others. That holds
// when nothing else in the package can call a function of a list, so every use of such a value must be one that is known.
type flow struct {
	suite  *suite
	listed map[*ast.Ident]bool // uses of functions as values
	why    string              // why it is not exact
}

func newFlow(s *suite) *flow {
	f := &flow{suite: s, listed: map[*ast.Ident]bool{}}
	if s.harness == "" {
		f.why = "it is not on BuildKit's harness"
		return f
	}
	if f.why = s.unknownHarness(); f.why == "" {
		for _, u := range s.units {
			for _, file := range u.files {
				f.follow(u, file)
			}
		}
		f.findRunners()
	}
	if f.why != "" {
		f.listed = nil
	}
	s.flow = f
	return f
}

func (f *flow) fail(at ast.Node, what string) {
	if f.why == "" {
		f.why = fmt.Sprintf("%s: %s", filepath.Base(f.suite.fset.Position(at.Pos()).String()), what)
	}
}

// follow checks each use of a harness's test, of a function that is one, and of lists of them.
func (f *flow) follow(u *unit, file *ast.File) {
	var above []ast.Node
	ast.Inspect(file, func(at ast.Node) bool {
		if at == nil {
			above = above[:len(above)-1]
			return true
		}
		if expression, ok := at.(ast.Expr); ok {
			f.check(u, expression, above)
		}
		above = append(above, at)
		return true
	})
}

func (f *flow) check(u *unit, e ast.Expr, above []ast.Node) {
	if _, ok := e.(*ast.ParenExpr); ok {
		return // what is in it is checked
	}
	found, ok := u.info.Types[e]
	if ident, isIdent := e.(*ast.Ident); isIdent && !ok {
		if object := u.info.Uses[ident]; object != nil {
			if _, isType := object.(*types.TypeName); !isType {
				found, ok = types.TypeAndValue{Type: object.Type()}, true
			}
		}
	}
	if !ok || found.IsType() || found.IsBuiltin() || !f.carries(found.Type, nil) {
		return
	}
	child, level := ast.Node(e), len(above)-1
	for ; level >= 0; level-- {
		if _, ok := above[level].(*ast.ParenExpr); !ok {
			break
		}
		child = above[level]
	}
	parent := above[level]
	if selector, ok := parent.(*ast.SelectorExpr); ok && selector.Sel == e {
		return // the selector is checked
	}
	if f.allowed(u, e, found.Type, child, parent, above[:level]) {
		return
	}
	f.fail(e, "a test of the harness is used in another way than by the harness")
}

func (f *flow) allowed(u *unit, e ast.Expr, t types.Type, child, parent ast.Node, above []ast.Node) bool {
	if ident, ok := e.(*ast.Ident); ok {
		call, isCall := parent.(*ast.CallExpr)
		if function, ok := u.info.Uses[ident].(*types.Func); ok {
			if isCall && call.Fun == child {
				return true // a call, as any other
			}
			f.listed[ident] = function.Signature().TypeParams() == nil
		}
	}
	same := func(other types.Type) bool { return other != nil && types.Identical(other, t) }
	switch p := parent.(type) {
	case *ast.CallExpr:
		if p.Fun == child {
			return f.isDirect(u, e)
		}
		return f.mayTake(u, p, child, same)
	case *ast.CompositeLit:
		switch of := types.Unalias(u.info.TypeOf(p)).Underlying().(type) {
		case *types.Slice:
			return same(of.Elem())
		case *types.Array:
			return same(of.Elem())
		}
	case *ast.AssignStmt:
		for i, one := range p.Lhs {
			if one == child {
				return true
			}
			if len(p.Lhs) == len(p.Rhs) && p.Rhs[i] == child {
				ident, ok := one.(*ast.Ident)
				return ok && (ident.Name == "_" || same(u.info.TypeOf(ident)))
			}
		}
	case *ast.ValueSpec:
		for i, one := range p.Values {
			if one == child && len(p.Names) == len(p.Values) {
				object := u.info.Defs[p.Names[i]]
				return object != nil && same(object.Type())
			}
		}
	case *ast.ReturnStmt:
		results := resultsOf(u, above)
		for i, one := range p.Results {
			if one == child && results != nil && results.Len() == len(p.Results) {
				return same(results.At(i).Type())
			}
		}
	case *ast.RangeStmt:
		return p.X == child || p.Key == child || p.Value == child
	case *ast.IndexExpr:
		return p.X == child
	case *ast.SliceExpr:
		return p.X == child
	case *ast.ExprStmt:
		return true
	}
	return false
}

// isDirect returns whether a call's function is a declared one, or one that is written there.
func (f *flow) isDirect(u *unit, e ast.Expr) bool {
	switch one := e.(type) {
	case *ast.FuncLit:
		return true
	case *ast.Ident:
		_, ok := u.info.Uses[one].(*types.Func)
		return ok
	case *ast.SelectorExpr:
		function, ok := u.info.Uses[one.Sel].(*types.Func)
		if !ok {
			return false
		}
		receiver := function.Signature().Recv()
		return receiver == nil || !types.IsInterface(receiver.Type())
	}
	return false
}

// mayTake returns whether a call may have a test, or a list of tests, as an argument.
func (f *flow) mayTake(u *unit, call *ast.CallExpr, argument ast.Node, same func(types.Type) bool) bool {
	name := ast.Unparen(call.Fun)
	if ident, ok := name.(*ast.Ident); ok {
		if builtin, ok := u.info.Uses[ident].(*types.Builtin); ok {
			return slices.Contains([]string{"append", "len", "cap", "clear"}, builtin.Name())
		}
	}
	var function *types.Func
	switch one := name.(type) {
	case *ast.Ident:
		function, _ = u.info.Uses[one].(*types.Func)
	case *ast.SelectorExpr:
		function, _ = u.info.Uses[one.Sel].(*types.Func)
	}
	if function == nil || function.Pkg() == nil {
		return false
	}
	if function.Pkg().Path() == f.suite.harness {
		return function.Name() == "Run" && function.Signature().Recv() == nil || function.Name() == "TestFuncs"
	}
	signature := function.Signature()
	if f.suite.node(function) == nil || signature.TypeParams() != nil || signature.Recv() != nil {
		return false
	}
	for i, one := range call.Args {
		if one != argument {
			continue
		}
		last := signature.Params().Len() - 1
		if !signature.Variadic() || i < last {
			return same(signature.Params().At(i).Type())
		}
		list := signature.Params().At(last).Type()
		if call.Ellipsis.IsValid() {
			return same(list)
		}
		return same(list.(*types.Slice).Elem())
	}
	return false
}

func resultsOf(u *unit, above []ast.Node) *types.Tuple {
	for level := len(above) - 1; level >= 0; level-- {
		switch one := above[level].(type) {
		case *ast.FuncLit:
			return u.info.TypeOf(one).(*types.Signature).Results()
		case *ast.FuncDecl:
			return u.info.Defs[one.Name].(*types.Func).Signature().Results()
		}
	}
	return nil
}

// carries returns whether a value of a type is, or has, a test of the harness.
func (f *flow) carries(t types.Type, seen []types.Type) bool {
	for _, one := range seen {
		if one == t {
			return false
		}
	}
	seen = append(seen, t)
	switch one := types.Unalias(t).(type) {
	case *types.Named:
		if f.isOf(one, "Test") {
			return true
		}
		if package_ := one.Obj().Pkg(); package_ == nil || f.suite.byName[package_.Path()+"."+one.Obj().Name()] == nil {
			arguments := one.TypeArgs()
			for i := 0; arguments != nil && i < arguments.Len(); i++ {
				if f.carries(arguments.At(i), seen) {
					return true
				}
			}
			return false // a type of a dependency, which has no such field but by Test
		}
		return f.carries(one.Underlying(), seen)
	case *types.Slice:
		return f.carries(one.Elem(), seen)
	case *types.Array:
		return f.carries(one.Elem(), seen)
	case *types.Pointer:
		return f.carries(one.Elem(), seen)
	case *types.Chan:
		return f.carries(one.Elem(), seen)
	case *types.Map:
		return f.carries(one.Elem(), seen) || f.carries(one.Key(), seen)
	case *types.Struct:
		for i := range one.NumFields() {
			if f.carries(one.Field(i).Type(), seen) {
				return true
			}
		}
	case *types.Tuple:
		for i := range one.Len() {
			if f.carries(one.At(i).Type(), seen) {
				return true
			}
		}
	case *types.Signature:
		return f.isTest(one)
	}
	return false
}

func (f *flow) isOf(named *types.Named, name string) bool {
	object := named.Obj()
	return object.Pkg() != nil && object.Pkg().Path() == f.suite.harness && object.Name() == name
}

// isTest returns whether a function has the signature of the harness's tests.
func (f *flow) isTest(signature *types.Signature) bool {
	parameters := signature.Params()
	if parameters.Len() != 2 || signature.Results().Len() != 0 || signature.Variadic() {
		return false
	}
	named, ok := types.Unalias(parameters.At(1).Type()).(*types.Named)
	return ok && f.isOf(named, "Sandbox") && isT(parameters.At(0).Type())
}

func isT(t types.Type) bool { return types.TypeString(t, nil) == "*testing.T" }

// findRunners finds the functions that run the harness. Each must hand its own *testing.T on, outside of any inner function, so
// that the names of the harness's tests come right after that of the test function. None of these can be a test of the harness.
func (f *flow) findRunners() {
	for changed := true; changed; {
		changed = false
		for _, n := range f.suite.nodes {
			d, isFunction := n.syntax.(*ast.FuncDecl)
			var above []ast.Node
			ast.Inspect(n.syntax, func(at ast.Node) bool {
				if at == nil {
					above = above[:len(above)-1]
					return true
				}
				if ident, ok := at.(*ast.Ident); ok && f.isRunner(n.unit, ident) {
					if !isFunction || d.Recv != nil || !f.handsOn(n.unit, d, ident, above) {
						f.fail(at, "the harness is run in another way than by a function for its own test")
					}
					changed = changed || !n.runs
					n.runs = true
				}
				above = append(above, at)
				return true
			})
		}
	}
}

func (f *flow) isRunner(u *unit, ident *ast.Ident) bool {
	function, ok := u.info.Uses[ident].(*types.Func)
	if !ok || function.Pkg() == nil {
		return false
	}
	if function.Pkg().Path() == f.suite.harness && function.Name() == "Run" && function.Signature().Recv() == nil {
		return true
	}
	n := f.suite.node(function)
	return n != nil && n.runs
}

func (f *flow) handsOn(u *unit, d *ast.FuncDecl, ident *ast.Ident, above []ast.Node) bool {
	level := len(above) - 1
	child := ast.Node(ident)
	if selector, ok := above[level].(*ast.SelectorExpr); ok {
		child, level = selector, level-1
	}
	call, ok := above[level].(*ast.CallExpr)
	if !ok || call.Fun != child || len(call.Args) == 0 {
		return false
	}
	for _, one := range above {
		if _, ok := one.(*ast.FuncLit); ok {
			return false
		}
	}
	first, ok := call.Args[0].(*ast.Ident)
	if !ok || len(d.Type.Params.List) == 0 || len(d.Type.Params.List[0].Names) == 0 {
		return false
	}
	parameter := u.info.Defs[d.Type.Params.List[0].Names[0]]
	return parameter != nil && isT(parameter.Type()) && u.info.Uses[first] == parameter && !assigned(u, d, parameter)
}

// assigned returns whether a function gives its parameter another value.
func assigned(u *unit, d *ast.FuncDecl, parameter types.Object) bool {
	found := false
	ast.Inspect(d, func(at ast.Node) bool {
		switch one := at.(type) {
		case *ast.AssignStmt:
			for _, left := range one.Lhs {
				if ident, ok := left.(*ast.Ident); ok && u.info.Uses[ident] == parameter {
					found = true
				}
			}
		case *ast.UnaryExpr:
			if ident, ok := one.X.(*ast.Ident); ok && one.Op == token.AND && u.info.Uses[ident] == parameter {
				found = true
			}
		}
		return true
	})
	return found
}

// An onHarness are the functions that the harness calls for ENTRY/NAME; none of a list when the name is empty, which stands
// for all names that no listed function has.
type onHarness struct {
	entry, name string
	functions   []*node
}

func (s *suite) onHarness(tests map[string][]*node) []onHarness {
	if s.flow == nil || s.flow.why != "" {
		if s.flow != nil && s.harness != "" {
			fmt.Println("the keys of the harness's tests have all of them:", s.flow.why)
		}
		return nil
	}
	byName := map[string][]*node{}
	for _, n := range s.nodes {
		for _, one := range n.listed {
			name := title(one.syntax.(*ast.FuncDecl).Name.Name)
			if !isPlain(name) {
				fmt.Println("the keys of the harness's tests have all of them: the harness's name for", name, "is not plain")
				return nil
			}
			if !slices.Contains(byName[name], one) {
				byName[name] = append(byName[name], one)
			}
		}
	}
	var found []onHarness
	for entry, nodes := range tests {
		if len(nodes) != 1 || !nodes[0].runs {
			continue
		}
		found = append(found, onHarness{entry, "", nil})
		for name, functions := range byName {
			found = append(found, onHarness{entry, name, functions})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].entry+"+"+found[i].name < found[j].entry+"+"+found[j].name })
	return found
}

func title(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

func isPlain(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
}

// nameFunction is the SHA-256 of the harness's function for the names of tests, as `go/printer` prints it: the title of the
// function's own name.
const nameFunction = "514e86e4c8f2c332a71b73c374771c0c1d218c29fefc8b43c6079ea6148bcd8a"

// unknownHarness returns why the harness may call other functions than those whose names are asked for.
func (s *suite) unknownHarness() string {
	p := s.byPath[s.harness+" ["+s.target+".test]"]
	if p == nil {
		p = s.byPath[s.harness]
	}
	if p == nil {
		return "go list does not name the harness"
	}
	var hasName, hasRun bool
	for _, name := range p.GoFiles {
		fset := token.NewFileSet()
		data, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return err.Error()
		}
		file, err := parser.ParseFile(fset, name, data, parser.SkipObjectResolution)
		if err != nil {
			return err.Error()
		}
		for _, declaration := range file.Decls {
			d, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			text := &strings.Builder{}
			must(printer.Fprint(text, fset, d))
			switch {
			case d.Recv == nil && d.Name.Name == "getFunctionName":
				sum := sha256.Sum256([]byte(strings.ReplaceAll(text.String(), "interface{}", "any")))
				hasName = hex.EncodeToString(sum[:]) == nameFunction
			case d.Recv == nil && d.Name.Name == "Run":
				body := text.String()
				hasRun = strings.Contains(body, `name := fn + "/worker=" + br.Name()`) && strings.Contains(body, "fn := tc.Name()")
				if !onlyInSubtests(d) {
					return "the harness runs tests outside of their subtests"
				}
			case d.Recv == nil && d.Name.Name != "TestFuncs" || d.Recv != nil && d.Name.Name != "Run":
				if !onlyInSubtests(d) {
					return "the harness runs tests in " + d.Name.Name
				}
			}
		}
	}
	if !hasName || !hasRun {
		return "the harness gives its tests names in another way"
	}
	return ""
}

// onlyInSubtests returns whether a function of the harness calls x.Run(a, b) and x.run(a, b) in functions for t.Run alone.
func onlyInSubtests(d *ast.FuncDecl) bool {
	fine := true
	var inside func(at ast.Node, isSubtest bool)
	inside = func(at ast.Node, isSubtest bool) {
		ast.Inspect(at, func(one ast.Node) bool {
			call, ok := one.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || selector.Sel.Name != "Run" && selector.Sel.Name != "run" {
				return true
			}
			if ident, ok := selector.X.(*ast.Ident); ok && ident.Name == "t" && selector.Sel.Name == "Run" {
				inside(call.Args[0], isSubtest)
				inside(call.Args[1], true)
				return false
			}
			fine = fine && isSubtest
			return true
		})
	}
	inside(d.Body, false)
	return fine
}
