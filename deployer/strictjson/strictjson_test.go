package strictjson

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

type document struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Inner *inner            `json:"inner"`
	List  []inner           `json:"list,omitempty"`
	Facts map[string]string `json:"facts"`
	Skip  string            `json:"-"`
	Plain bool
}

type inner struct {
	Path string `json:"path"`
}

func TestDecode(t *testing.T) {
	var d document
	err := Decode([]byte(" {\"name\":\"ü\\u0061\", \"inner\":{\"path\":\"p\"}, \"list\":[{\"path\":\"q\"},{}], \"facts\":{\"any\":\"x\",\"Any\":\"y\"}, \"Plain\":true}\n\t "), &d)
	want := document{Name: "üa", Inner: &inner{"p"}, List: []inner{{"q"}, {}}, Facts: map[string]string{"any": "x", "Any": "y"}, Plain: true}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("%+v, %v", d, err)
	}

	for body, want := range map[string]FieldError{
		``:                                  {"", "empty; want a JSON object"},
		` `:                                 {"", "empty; want a JSON object"},
		`null`:                              {"", "want a JSON object"},
		`"x"`:                               {"", "want a JSON object"},
		`{`:                                 {"", "the JSON ends too early"},
		`{"name": }`:                        {"", "not JSON at byte 10: invalid character '}' looking for beginning of value"},
		`{} {}`:                             {"", "something follows the JSON object at byte 4"},
		"{\"name\":\"\xff\"}":               {"", "not valid UTF-8"},
		`{"nam":1}`:                         {"nam", "unknown; known are Plain, count, facts, inner, list, name"},
		`{"Name":"x"}`:                      {"Name", `unknown; the name is "name"`},
		`{"-":"x"}`:                         {"-", "unknown; known are Plain, count, facts, inner, list, name"},
		`{"quiet":1}`:                       {"quiet", "unknown; known are Plain, count, facts, inner, list, name"},
		`{"name":"a","name":"b"}`:           {"name", "given twice"},
		`{"name":"a","n\u0061me":"b"}`:      {"name", "given twice"},
		`{"name":1}`:                        {"name", "want a string, found number"},
		`{"count":1.5}`:                     {"count", "want a whole number in range, found number 1.5"},
		`{"count":99999999999999999999}`:    {"count", "want a whole number in range, found number 99999999999999999999"},
		`{"Plain":0}`:                       {"Plain", "want true or false, found number"},
		`{"inner":{"path":"x","y":1}}`:      {"inner.y", "unknown; known are path"},
		`{"inner":[]}`:                      {"inner", "want an object, found array"},
		`{"list":[{"path":""},{"Path":1}]}`: {"list.path", "want a string, found number"},
		`{"list":[{},{"x":{"y":[1]}}]}`:     {"list[1].x", "unknown; known are path"},
		`{"facts":{"a":"1","a":"1"}}`:       {"facts.a", "given twice"},
	} {
		var d document
		err := Decode([]byte(body), &d)
		var field *FieldError
		if !errors.As(err, &field) || *field != want {
			t.Errorf("%s: %v, want %v", body, err, &want)
		}
	}
}

func TestDecodeNoNull(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"x","inner":null,"list":[{}]}`: "",
		`{"name":null}`:                         "name: want a string, found null",
		`{"list":null}`:                         "list: want an array, found null",
		`{"list":[{},null]}`:                    "list[1]: want an object, found null",
		`{"facts":{"a":null}}`:                  "facts.a: want a string, found null",
		`{"Plain":null}`:                        "Plain: want true or false, found null",
	} {
		var d document
		err := DecodeNoNull([]byte(body), &d)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
		if err := Decode([]byte(body), &d); err != nil {
			t.Errorf("Decode: %s: %v", body, err)
		}
	}
}

// FuzzDecode: Decode takes no more than encoding/json does, and reads the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"x","list":[{"path":"a"}],"facts":{"k":"v"}}`))
	f.Add([]byte(`{"inner":{"inner":{}}}`))
	f.Add([]byte(`{"count":1e3} `))
	f.Fuzz(func(t *testing.T, data []byte) {
		var strict, lax document
		err := Decode(data, &strict)
		dec := json.NewDecoder(strings.NewReader(string(data)))
		dec.DisallowUnknownFields()
		laxErr := dec.Decode(&lax)
		if err == nil && (laxErr != nil || !reflect.DeepEqual(strict, lax)) {
			t.Fatalf("Decode gives %+v, encoding/json %+v, %v", strict, lax, laxErr)
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without a reason")
		}
	})
}
