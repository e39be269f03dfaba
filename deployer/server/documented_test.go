package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
)

// Document is the OpenAPI document, with the schemas in it.
var Document = sync.OnceValue(func() *described {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(deployerv1.OpenAPI))
	if err != nil {
		panic(err)
	}
	d := &described{compiler: jsonschema.NewCompiler(), paths: map[*regexp.Regexp]string{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("openapi.json", value); err != nil {
		panic(err)
	}
	if err := json.Unmarshal(deployerv1.OpenAPI, &d.Content); err != nil {
		panic(err)
	}
	for path := range d.Content.Paths {
		d.paths[regexp.MustCompile("^"+regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(path, "[^/]+")+"$")] = path
	}
	return d
})

type described struct {
	mu       sync.Mutex
	compiler *jsonschema.Compiler
	paths    map[*regexp.Regexp]string
	Content  struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]any `json:"content"`
			} `json:"responses"`
		} `json:"paths"`
	}
}

// check holds an answer of REST against the document.
func (d *described) check(t testing.TB, method, path string, status int, media string, body []byte) {
	media, _, _ = strings.Cut(media, ";")
	var route string
	for match, p := range d.paths {
		if match.MatchString(path) {
			route = p
		}
	}
	location := "/components/schemas/plasmacloud.deployer.v1.Problem"
	operation, known := d.Content.Paths[route][strings.ToLower(method)]
	if known {
		answer := strconv.Itoa(status)
		if _, own := operation.Responses[answer]; !own {
			answer = "default"
		}
		if _, said := operation.Responses[answer].Content[media]; !said {
			if answer != "503" {
				t.Errorf("%s %s: the document has no %s with status %d", method, path, media, status)
				return
			}
			answer = "default" // not of the health, but a problem
		}
		escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
		location = "/paths/" + escape.Replace(route) + "/" + strings.ToLower(method) + "/responses/" + answer + "/content/" + escape.Replace(media) + "/schema"
	} else if media != api.ProblemContentType { // the document itself
		return
	}
	if !strings.HasSuffix(media, "json") {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	schema, err := d.compiler.Compile("openapi.json#" + location)
	if err != nil {
		t.Errorf("%s: %v", location, err)
		return
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		t.Errorf("%s %s answers with %d %s, and the document says\n%v", method, path, status, body, err)
	}
}

// AsDocumented holds all that h answers with in REST against the document.
func AsDocumented(t testing.TB, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, rpcPrefix) {
			h.ServeHTTP(w, r)
			return
		}
		kept := &keptAnswer{ResponseWriter: w}
		h.ServeHTTP(kept, r)
		if r.Method != http.MethodHead && strings.HasSuffix(w.Header().Get("Content-Type"), "json") {
			Document().check(t, r.Method, r.URL.Path, kept.status, w.Header().Get("Content-Type"), kept.body.Bytes())
		}
	})
}

type keptAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) Unwrap() http.ResponseWriter { return k.ResponseWriter }
func (k *keptAnswer) WriteHeader(status int) {
	k.status = status
	k.ResponseWriter.WriteHeader(status)
}

func (k *keptAnswer) Write(p []byte) (int, error) {
	k.body.Write(p)
	return k.ResponseWriter.Write(p)
}
