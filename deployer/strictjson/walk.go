package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// walk looks at what json.Unmarshal lets pass, in data that it took. That is the path
// of every report, so what is right costs no memory.
type walk struct {
	data   []byte
	at     int // of the byte to look at next
	noNull bool
	path   []step // to where it is
}

// step is a key, or an index where there is no key.
type step struct {
	key   []byte
	index int
}

func (w *walk) fail(format string, args ...any) error {
	var path strings.Builder
	for i, s := range w.path {
		switch {
		case s.key == nil:
			path.WriteString("[" + strconv.Itoa(s.index) + "]")
		case i > 0:
			path.WriteString("." + string(s.key))
		default:
			path.Write(s.key)
		}
	}
	return &FieldError{Field: path.String(), Reason: fmt.Sprintf(format, args...)}
}

// next skips what is between values, and returns the byte after it.
func (w *walk) next() byte {
	for {
		switch c := w.data[w.at]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			w.at++
		default:
			return c
		}
	}
}

// value walks one value of type t.
func (w *walk) value(t reflect.Type) error {
	nullable := t != nil && t.Kind() == reflect.Pointer
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch w.next() {
	case '{':
		w.at++
		return w.object(t)
	case '[':
		w.at++
		each := elem(t)
		for i := 0; w.next() != ']'; i++ {
			w.path = append(w.path, step{index: i})
			if err := w.value(each); err != nil {
				return err
			}
			w.path = w.path[:len(w.path)-1]
		}
		w.at++
	case '"':
		w.string()
	default: // a number, true, false or null
		null := w.data[w.at] == 'n'
		if end := bytes.IndexAny(w.data[w.at:], ",]} \t\r\n"); end >= 0 {
			w.at += end
		} else {
			w.at = len(w.data)
		}
		if null && w.noNull && !nullable && t != nil {
			return w.fail("want %s, found null", typeName(t))
		}
	}
	return nil
}

// string walks a string, and returns it without its quotes.
func (w *walk) string() []byte {
	begin := w.at
	w.at++
	for escaped := false; ; w.at++ {
		switch w.data[w.at] {
		case '\\':
			escaped = true
			w.at++
		case '"':
			w.at++
			if !escaped {
				return w.data[begin+1 : w.at-1]
			}
			var text string
			_ = json.Unmarshal(w.data[begin:w.at], &text) // it was read before
			return []byte(text)
		}
	}
}

// fewKeys are compared one by one.
const fewKeys = 64

func (w *walk) object(t reflect.Type) error {
	names, each := fields(t), elem(t)
	first := len(w.path)
	var room [16][]byte
	seen := room[:0]
	var many map[string]bool
	for w.next() != '}' {
		key := w.string()
		w.path = append(w.path[:first], step{key: key})
		switch {
		case many != nil && many[string(key)], slices.ContainsFunc(seen, func(k []byte) bool { return bytes.Equal(k, key) }):
			return w.fail("given twice")
		case many != nil:
			many[string(key)] = true
		case len(seen) < fewKeys:
			seen = append(seen, key)
		default:
			many = map[string]bool{string(key): true}
		}
		next := each
		if names != nil {
			var ok bool
			if next, ok = names[string(key)]; !ok {
				return w.fail("%s", unknown(string(key), names))
			}
		}
		if err := w.value(next); err != nil {
			return err
		}
	}
	w.at++
	w.path = w.path[:first]
	return nil
}
