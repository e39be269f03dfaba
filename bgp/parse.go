package bgp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// fields are what a JSON object has, in its order.
type fields []field

type field struct {
	key   string
	value any
}

// maxKeys is how many keys one object may have; those that are known are far fewer.
const maxKeys = 256

func (f fields) get(key string) (value any, ok bool) {
	for i := range f {
		if f[i].key == key {
			return f[i].value, true
		}
	}
	return nil, false
}

// parseJSON reads one JSON value into fields, slices, strings, json.Number, bool and
// nil. Unlike encoding/json it refuses a key that is written twice, and says where
// in the file a mistake is.
func parseJSON(data []byte) (any, error) {
	if !json.Valid(data) {
		return nil, invalid(data)
	}
	p := parser{data, map[string]string{}}
	return p.value(0)
}

// invalid says what keeps data from being JSON.
func invalid(data []byte) error {
	err := json.Unmarshal(data, new(json.RawMessage))
	offset := int64(len(data))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	switch text := err.Error(); {
	case text == "unexpected end of JSON input":
		err = errors.New("ends too early; is it cut off?")
	case strings.HasSuffix(text, "after top-level value"):
		err = errors.New("something follows after the end of the JSON object; remove it")
	}
	return fmt.Errorf("line %d: not valid JSON: %w", 1+bytes.Count(data[:offset], []byte("\n")), err)
}

const maxDepth = 16

// parser reads JSON that is known to be valid, so it looks for nothing else: 100,000 VIPs
// cost little beside what the tokens of encoding/json cost.
type parser struct {
	rest []byte
	keys map[string]string // each once in memory
}

// next is the first byte of the next value or the end of a list or an object. What
// stands before it can be nothing but these.
func (p *parser) next() byte {
	p.rest = bytes.TrimLeft(p.rest, " \t\r\n,:")
	return p.rest[0]
}

func (p *parser) value(depth int) (any, error) {
	switch p.next() {
	case '{', '[':
		if depth == maxDepth {
			return nil, &fieldError{text: "is nested too deeply"}
		}
		if p.rest[0] == '[' {
			return p.list(depth)
		}
		return p.object(depth)
	case '"':
		return p.text(), nil
	case 't':
		p.pass(len("true"))
		return true, nil
	case 'f':
		p.pass(len("false"))
		return false, nil
	case 'n':
		p.pass(len("null"))
		return nil, nil
	default:
		end := bytes.IndexAny(p.rest, " \t\r\n,]}")
		if end < 0 {
			end = len(p.rest)
		}
		number := json.Number(p.rest[:end])
		p.pass(end)
		return number, nil
	}
}

// pass goes on behind so many bytes.
func (p *parser) pass(bytes int) { p.rest = p.rest[bytes:] }

func (p *parser) list(depth int) (any, error) {
	p.pass(1)
	list := []any{}
	for p.next() != ']' {
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, within(fmt.Sprintf("[%d]", len(list)), err)
		}
		list = append(list, item)
	}
	p.pass(1)
	return list, nil
}

func (p *parser) object(depth int) (any, error) {
	p.pass(1)
	object := make(fields, 0, 4)
	for p.next() != '}' {
		key := p.key()
		if _, twice := object.get(key); twice {
			return nil, &fieldError{key, "is written twice; remove one"}
		}
		if len(object) == maxKeys {
			return nil, &fieldError{text: fmt.Sprintf("has more than %d keys", maxKeys)}
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, within(key, err)
		}
		object = append(object, field{key, value})
	}
	p.pass(1)
	return object, nil
}

// quoted is the string that comes next, with its quotes. It is plain if what it means is
// what stands between them.
func (p *parser) quoted() (quoted []byte, plain bool) {
	plain = true
	end := 1
	for ; p.rest[end] != '"'; end++ {
		switch c := p.rest[end]; {
		case c == '\\':
			plain = false
			end++
		case c >= 0x80: // perhaps no UTF-8
			plain = false
		}
	}
	quoted, p.rest = p.rest[:end+1], p.rest[end+1:]
	return quoted, plain
}

func (p *parser) key() string {
	quoted, plain := p.quoted()
	if key, known := p.keys[string(quoted)]; known {
		return key
	}
	key := meaning(quoted, plain)
	p.keys[string(quoted)] = key
	return key
}

func (p *parser) text() string { return meaning(p.quoted()) }

func meaning(quoted []byte, plain bool) (s string) {
	if plain {
		return string(quoted[1 : len(quoted)-1])
	}
	_ = json.Unmarshal(quoted, &s) // as valid as all
	return s
}

// within is err, which is of a place below step if it names one.
func within(step string, err error) error {
	var problem *fieldError
	if !errors.As(err, &problem) {
		return err
	}
	if problem.path == "" || strings.HasPrefix(problem.path, "[") {
		return &fieldError{step + problem.path, problem.text}
	}
	return &fieldError{join(step, problem.path), problem.text}
}
