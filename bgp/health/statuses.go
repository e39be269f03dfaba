package health

import (
	"fmt"
	"strconv"
	"strings"
)

// Statuses are HTTP statuses, written as "200-299,404"; "" is 200-299.
type Statuses string

// ParseStatuses reads entries such as "404" and "200-299".
func ParseStatuses(entries []string) (Statuses, error) {
	for _, entry := range entries {
		if _, _, ok := statusRange(entry); !ok {
			return "", fmt.Errorf("%s is no HTTP status; want one such as 204, or a range such as \"200-299\", from 100 to 599", quote(entry))
		}
	}
	return Statuses(strings.Join(entries, ",")), nil
}

// Has reports whether code is one of them.
func (s Statuses) Has(code int) bool {
	if s == "" {
		return code >= 200 && code <= 299
	}
	for entry := range strings.SplitSeq(string(s), ",") {
		if from, to, ok := statusRange(entry); ok && code >= from && code <= to {
			return true
		}
	}
	return false
}

func (s Statuses) String() string {
	if s == "" {
		return "2xx"
	}
	return strings.ReplaceAll(string(s), ",", ", ")
}

func statusRange(text string) (from, to int, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, ok1 := statusCode(first)
	to, ok2 := statusCode(last)
	return from, to, ok1 && ok2 && from <= to
}

func statusCode(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil && len(text) == 3 && n >= 100 && n <= 599
}

func quote(s string) string {
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return strconv.Quote(s)
}
