// Package strictjson decodes what people and strangers write: a key that nobody
// knows, a key twice, a key in the wrong case, bytes that are not UTF-8 and
// anything after the value are errors, and each error names the key.
// encoding/json lets all of these pass in silence or says only where they are.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// FieldError is a mistake in one key. Field is its path, for example "vips[3]"
// or "store.path"; "" is the document as a whole.
type FieldError struct {
	Field  string
	Reason string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	return e.Field + ": " + e.Reason
}

// Decode reads data, one JSON object, into v, a pointer to a struct. Its errors
// are *FieldError.
func Decode(data []byte, v any) error { return decode(data, v, false) }

// DecodeNoNull is Decode, and takes null only for a pointer: json.Unmarshal leaves
// anything else as it was.
func DecodeNoNull(data []byte, v any) error { return decode(data, v, true) }

func decode(data []byte, v any, noNull bool) error {
	if !utf8.Valid(data) {
		return &FieldError{Reason: "not valid UTF-8"}
	}
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) == 0 {
		return &FieldError{Reason: "empty; want a JSON object"}
	} else if start[0] != '{' {
		return &FieldError{Reason: "want a JSON object"}
	}
	if err := json.Unmarshal(data, v); err != nil {
		return decodeError(err)
	}
	w := walk{data: data, noNull: noNull}
	return w.value(reflect.TypeOf(v))
}

func decodeError(err error) error {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mismatch):
		return &FieldError{Field: mismatch.Field, Reason: fmt.Sprintf("want %s, found %s", typeName(mismatch.Type), mismatch.Value)}
	case errors.As(err, &syntax):
		switch reason := syntax.Error(); {
		case strings.HasSuffix(reason, "after top-level value"):
			return &FieldError{Reason: fmt.Sprintf("something follows the JSON object at byte %d", syntax.Offset)}
		case strings.HasPrefix(reason, "unexpected end"):
			return &FieldError{Reason: "the JSON ends too early"}
		default:
			return &FieldError{Reason: fmt.Sprintf("not JSON at byte %d: %s", syntax.Offset, reason)}
		}
	default:
		return &FieldError{Reason: strings.TrimPrefix(err.Error(), "json: ")}
	}
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.String:
		return "a string"
	case reflect.Pointer:
		return typeName(t.Elem())
	default:
		return "a whole number in range"
	}
}

func unknown(key string, names map[string]reflect.Type) string {
	for name := range names {
		if strings.EqualFold(name, key) {
			return fmt.Sprintf("unknown; the name is %q", name)
		}
	}
	return "unknown; known are " + strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// known caches fields: reflect.Type -> map[string]reflect.Type.
var known sync.Map

// fields are the JSON names of struct t, nil when t is not a struct.
func fields(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	if cached, ok := known.Load(t); ok {
		return cached.(map[string]reflect.Type)
	}
	names := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		names[name] = f.Type
	}
	known.Store(t, names)
	return names
}

func elem(t reflect.Type) reflect.Type {
	if t == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Map, reflect.Slice, reflect.Array:
		return t.Elem()
	default:
		return nil
	}
}
