package policy

import (
	"math"
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"

	"gatehouse/edge"
)

// Fact is one row of the table of facts: a name that expressions may use.
type Fact struct {
	Name string // "pass.category"
	Type string // CEL's: string, int, double, bool, list(string)
	Doc  string
	get  func(f *edge.Facts) any
	kind *cel.Type
}

// absentInt stands for an absent number, so large that "not older than" fails.
const absentInt = int64(math.MaxInt32)

// Facts is the table of all facts, derived from edge.Facts. Counters and marks
// come with the policy that declares them.
func Facts() []Fact {
	var out []Fact
	t := reflect.TypeFor[edge.Facts]()
	for i := range t.NumField() {
		group := t.Field(i)
		name := jsonName(group)
		if group.Name == "Time" {
			name = "time"
		}
		gt := group.Type
		optional := gt.Kind() == reflect.Pointer
		if optional {
			gt = gt.Elem()
			out = append(out, Fact{Name: "known." + name, Type: "bool", Doc: "whether there is anything of: " + group.Tag.Get("doc"), kind: cel.BoolType,
				get: func(f *edge.Facts) any { return !reflect.ValueOf(f).Elem().Field(i).IsNil() }})
		}
		if gt.Kind() != reflect.Struct {
			continue
		}
		for k := range gt.NumField() {
			field := gt.Field(k)
			fname := jsonName(field)
			if fname == "" {
				continue
			}
			fact := Fact{Name: name + "." + fname, Doc: field.Tag.Get("doc")}
			fact.kind, fact.get = getter(field.Type, func(f *edge.Facts) (reflect.Value, bool) {
				v := reflect.ValueOf(f).Elem().Field(i)
				if optional {
					if v.IsNil() {
						return reflect.Value{}, false
					}
					v = v.Elem()
				}
				return v.Field(k), true
			})
			fact.Type = typeName(fact.kind)
			out = append(out, fact)
		}
	}
	slices.SortFunc(out, func(a, b Fact) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func jsonName(f reflect.StructField) string {
	n, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if n == "-" {
		return ""
	}
	return n
}

func typeName(t *cel.Type) string {
	switch t {
	case cel.BoolType:
		return "bool"
	case cel.IntType:
		return "int"
	case cel.DoubleType:
		return "double"
	case cel.StringType:
		return "string"
	}
	return "list(string)"
}

// getter makes the reader of one field. What is absent reads as the type's
// least harmful value: "", false, an endless age, not-a-number.
func getter(t reflect.Type, at func(*edge.Facts) (reflect.Value, bool)) (*cel.Type, func(*edge.Facts) any) {
	switch {
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Int:
		return cel.IntType, func(f *edge.Facts) any {
			if v, ok := at(f); ok && !v.IsNil() {
				return v.Elem().Int()
			}
			return absentInt
		}
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Float64:
		return cel.DoubleType, func(f *edge.Facts) any {
			if v, ok := at(f); ok && !v.IsNil() {
				return v.Elem().Float()
			}
			return math.NaN()
		}
	case t.Kind() == reflect.Float64:
		return cel.DoubleType, func(f *edge.Facts) any {
			if v, ok := at(f); ok {
				return v.Float()
			}
			return 0.0
		}
	case t.Kind() == reflect.String:
		return cel.StringType, func(f *edge.Facts) any {
			if v, ok := at(f); ok {
				return v.String()
			}
			return ""
		}
	case t.Kind() == reflect.Bool:
		return cel.BoolType, func(f *edge.Facts) any {
			v, ok := at(f)
			return ok && v.Bool()
		}
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return cel.IntType, func(f *edge.Facts) any {
			if v, ok := at(f); ok {
				return v.Int()
			}
			return int64(0)
		}
	default:
		return cel.ListType(cel.StringType), func(f *edge.Facts) any {
			if v, ok := at(f); ok && !v.IsNil() {
				return v.Interface().([]string)
			}
			return []string{}
		}
	}
}

// activation gives an expression its facts by name.
type activation struct {
	f     *edge.Facts
	table map[string]func(*edge.Facts) any
	over  map[string]any // facts as they might have been
}

func (a *activation) ResolveName(name string) (any, bool) {
	if v, ok := a.over[name]; ok {
		return v, true
	}
	g, ok := a.table[name]
	if !ok {
		return nil, false
	}
	return g(a.f), true
}

func (a *activation) Parent() cel.Activation { return nil }
