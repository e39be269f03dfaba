package bgp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// fieldError is a mistake at one place of the file.
type fieldError struct{ path, text string }

func (e *fieldError) Error() string {
	if e.path == "" {
		return e.text
	}
	return cut(e.path, 200) + ": " + e.text
}

// reader collects every mistake, so that a file is mended in one go.
type reader struct {
	problems []*fieldError
	spare    []string // the memory of an object's read, for the next one
}

func (r *reader) add(path, format string, args ...any) {
	r.problems = append(r.problems, &fieldError{path, fmt.Sprintf(format, args...)})
}

// err is one line with the first few mistakes, or nil.
func (r *reader) err() error {
	const most = 5
	if len(r.problems) == 0 {
		return nil
	}
	texts := make([]string, 0, most+1)
	for i, p := range r.problems {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(r.problems)-most))
			break
		}
		texts = append(texts, p.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}

// object is one JSON object that is being read; end reports the keys that nobody read.
type object struct {
	r      *reader
	path   string
	fields fields
	read   []string // keys; some twice
	bad    bool     // not an object at all, which is reported already
}

func (r *reader) object(path string, value any) *object {
	o := &object{r: r, path: path, read: r.spare[:0]}
	r.spare = nil
	fields, ok := value.(fields)
	if !ok {
		r.add(path, "is %s; want an object in braces", kindOf(value))
		o.bad = true
	}
	o.fields = fields
	return o
}

func (o *object) optionalObject(key string) *object {
	o.read = append(o.read, key)
	value, ok := o.fields.get(key)
	if !ok || value == nil {
		return &object{r: o.r, path: o.at(key)}
	}
	return o.r.object(o.at(key), value)
}

func (o *object) at(key string) string { return join(o.path, key) }

func (o *object) has(key string) bool { _, ok := o.fields.get(key); return ok }

// need returns the value of a key that must be there.
func (o *object) need(key string) (any, bool) {
	o.read = append(o.read, key)
	value, ok := o.fields.get(key)
	if !ok && !o.bad {
		o.r.add(o.at(key), "is missing")
	}
	return value, ok
}

// optional returns the value of a key unless it is absent or null.
func (o *object) optional(key string) (any, bool) {
	o.read = append(o.read, key)
	value, ok := o.fields.get(key)
	return value, ok && value != nil
}

func (o *object) text(key string) string {
	value, ok := o.need(key)
	if !ok {
		return ""
	}
	s := o.asText(key, value)
	if _, isText := value.(string); isText && s == "" {
		o.r.add(o.at(key), "is empty")
	}
	return s
}

func (o *object) textOr(key, otherwise string) string {
	value, ok := o.optional(key)
	if !ok {
		return otherwise
	}
	return o.asText(key, value)
}

// atMost reads a string of at most so many bytes; "" if it is absent.
func (o *object) atMost(key string, most int) string {
	s := o.textOr(key, "")
	if len(s) > most {
		o.r.add(o.at(key), "has %d bytes; at most %d are allowed", len(s), most)
		return ""
	}
	return s
}

func (o *object) asText(key string, value any) string {
	s, ok := value.(string)
	if !ok {
		o.r.add(o.at(key), "is %s; want a string", kindOf(value))
	}
	return s
}

// number reads a whole number from 0 to most.
func (o *object) number(key string, most uint64) uint64 {
	value, ok := o.need(key)
	if !ok {
		return 0
	}
	return o.asNumber(key, value, most)
}

func (o *object) optionalNumber(key string, most uint64) *uint32 {
	value, ok := o.optional(key)
	if !ok {
		return nil
	}
	n := uint32(o.asNumber(key, value, most))
	return &n
}

func (o *object) asNumber(key string, value any, most uint64) uint64 {
	number, ok := value.(json.Number)
	if ok {
		if n, err := strconv.ParseUint(number.String(), 10, 64); err == nil && n <= most {
			return n
		}
		o.r.add(o.at(key), "%s is not a whole number from 0 to %d", cut(number.String(), 60), most)
		return 0
	}
	o.r.add(o.at(key), "is %s; want a number", kindOf(value))
	return 0
}

// count reads a number of answers in a row, at least one.
func (o *object) count(key string, otherwise int) int { return o.positive(key, otherwise, 1000) }

// points reads a penalty, at least one.
func (o *object) points(key string, otherwise int) int { return o.positive(key, otherwise, 1_000_000) }

func (o *object) positive(key string, otherwise int, most uint64) int {
	value, ok := o.optional(key)
	if !ok {
		return otherwise
	}
	before := len(o.r.problems)
	n := o.asNumber(key, value, most)
	if n == 0 && len(o.r.problems) == before {
		o.r.add(o.at(key), "is 0; want at least 1")
	}
	return int(n)
}

// flag reads true or false; what is absent is false.
func (o *object) flag(key string) bool {
	value, ok := o.optional(key)
	if !ok {
		return false
	}
	b, ok := value.(bool)
	if !ok {
		o.r.add(o.at(key), "is %s; want true or false", kindOf(value))
	}
	return b
}

const maxDuration = 24 * time.Hour

// duration reads a string with a unit, above zero and at most a day.
func (o *object) duration(key string, otherwise time.Duration) time.Duration {
	value, ok := o.optional(key)
	if !ok {
		return otherwise
	}
	const want = "want a number with a unit, such as \"500ms\", \"5s\" or \"1m\""
	s, ok := value.(string)
	if !ok {
		o.r.add(o.at(key), "is %s; %s, as a string", kindOf(value), want)
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		o.r.add(o.at(key), "%s is not a duration; %s", quote(s), want)
		return 0
	case d < time.Millisecond || d > maxDuration:
		o.r.add(o.at(key), "%s is out of range; want from 1ms to %s", quote(s), "24h")
		return 0
	}
	return d
}

func (o *object) optionalAddr(key string, is func(netip.Addr) bool, want string) netip.Addr {
	value, ok := o.optional(key)
	if !ok {
		return netip.Addr{}
	}
	s := o.asText(key, value)
	if s == "" {
		if _, isText := value.(string); isText {
			o.r.add(o.at(key), "is empty; want %s, or null for the speaker's own", want)
		}
		return netip.Addr{}
	}
	a, err := parseAddr(s)
	switch {
	case err != nil:
		o.r.add(o.at(key), "%v", err)
	case !is(a) || !a.IsGlobalUnicast(): // to nothing else can a router send
		o.r.add(o.at(key), "%s is no next hop; want %s, or null for the speaker's own", quote(s), want)
	default:
		return a
	}
	return netip.Addr{}
}

func (o *object) list(key string) []any {
	value, ok := o.need(key)
	if !ok {
		return nil
	}
	return o.asList(key, value)
}

func (o *object) optionalList(key string) []any {
	value, ok := o.optional(key)
	if !ok {
		return nil
	}
	return o.asList(key, value)
}

func (o *object) asList(key string, value any) []any {
	list, ok := value.([]any)
	if !ok {
		o.r.add(o.at(key), "is %s; want a list in brackets", kindOf(value))
	}
	return list
}

// ignoreRest keeps end from reporting keys whose meaning is not known either.
func (o *object) ignoreRest() {
	for _, f := range o.fields {
		o.read = append(o.read, f.key)
	}
}

// end reports every key that was not read.
func (o *object) end() {
	defer func() { o.r.spare, o.read = o.read, nil }()
	var unknown []string
	for _, f := range o.fields {
		if !slices.Contains(o.read, f.key) {
			unknown = append(unknown, f.key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown {
		known := slices.Compact(slices.Sorted(slices.Values(o.read)))
		o.r.add(o.at(key), "is not known here; known are %s", strings.Join(known, ", "))
	}
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return "the number " + cut(v.String(), 60)
	case string:
		return "the string " + quote(v)
	case []any:
		return "a list"
	default:
		return "an object"
	}
}

// quote is s in quotes for a message, cut where it is long.
func quote(s string) string { return strconv.Quote(cut(s, 60)) }

// cut is the first most bytes of s, with a mark where something is left out.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
