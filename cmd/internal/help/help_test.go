package help

import (
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
)

func TestWrap(t *testing.T) {
	const words = "twelve words of which each is short, and together they are too long"
	for text, want := range map[string]string{
		"":                   "",
		"one line":           "one line",
		"two\nlines\n\nmore": "two lines\n\nmore",
		words + " " + words:  words + " twelve words\nof which each is short, and together they are too long",
		"list:\n  a   short\n  bc  " + words + "\n  d   " + words + " indeed so": "list:\n  a   short\n  bc  " + words + "\n  d   " + words + " indeed\n      so",
		"no\n  " + words + " at all ü":                                           "no\n  " + words + " at all ü",
		"the ü is\n  one column       " + words[:len(words)-16] + "üüüü":         "the ü is\n  one column       " + words[:len(words)-16] + "üüüü",
	} {
		assert.Equal(t, want, Wrap(text))
	}
	assert.Equal(t, words+"\n          which wrap", Column(10, words+" which wrap"))
}

func TestFlags(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.BoolP("yes", "y", false, "a boolean")
	flags.Bool("no", true, "another")
	flags.StringToString("map", nil, "`KEY=VALUE` without a default")
	flags.StringArrayP("list", "l", nil, "a `WORD`, repeatable")
	flags.String("text", "x", "a `TEXT` with an explanation that goes on and on until the line is full")
	assert.Equal(t, `  -l, --list WORD       a WORD, repeatable
      --map KEY=VALUE   KEY=VALUE without a default
      --no              another (default true)
      --text TEXT       a TEXT with an explanation that goes on and on
                        until the line is full (default "x")
  -y, --yes             a boolean
`, Flags(flags))
	value, err := flags.GetBool("no")
	assert.NoError(t, err, "the flags themselves are as they were")
	assert.True(t, value)
}
