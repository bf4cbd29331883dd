// Package text has the sentences that people read, in their language.
//
// A topic is a set of files, one per language: reasons.zh-Hans.yaml,
// reasons.en.yaml. Chinese and English are complete in every topic; what a
// resident sees at the lane (the topic display) is complete in all Languages.
// Message ids are written flat, with dots ("reason.quota.exceeded"); values are
// text/template, and plural forms are as in CLDR (one, other, ...).
//
// A message that a language lacks is given in English, then in Chinese; an
// id that nobody knows is given as it is, so that a screen is never empty.
package text

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

//go:embed *.yaml
var files embed.FS

// Complete are the languages that every topic has.
var complete = []string{"zh-Hans", "en"}

// languages are those of the resident's display.
var languages = []string{"zh-Hans", "en", "ja", "ko", "ru", "fr", "es", "ar"}

// Languages lists the languages of the resident's display, the site's first.
func Languages() []string { return slices.Clone(languages) }

// Catalogue holds all messages. It is safe for concurrent use.
type Catalogue struct {
	bundle  *i18n.Bundle
	matcher language.Matcher
	topics  map[string]map[string]map[string]bool // topic -> language -> ids
}

// New loads the embedded catalogues.
func New() (*Catalogue, error) {
	c := &Catalogue{bundle: i18n.NewBundle(language.MustParse("zh-Hans")), topics: map[string]map[string]map[string]bool{}}
	c.bundle.RegisterUnmarshalFunc("yaml", yaml.Unmarshal)
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("cannot read the catalogues: %w", err)
	}
	for _, e := range entries {
		if err := c.load(e.Name()); err != nil {
			return nil, fmt.Errorf("cannot read the catalogue %s: %w", e.Name(), err)
		}
	}
	tags := make([]language.Tag, len(languages))
	for i, l := range languages {
		tags[i] = language.MustParse(l)
	}
	c.matcher = language.NewMatcher(tags)
	return c, nil
}

func (c *Catalogue) load(name string) error {
	topic, rest, _ := strings.Cut(name, ".")
	lang := strings.TrimSuffix(rest, ".yaml")
	if !slices.Contains(languages, lang) {
		return fmt.Errorf("unknown language %q", lang)
	}
	src, err := files.ReadFile(name)
	if err != nil {
		return err
	}
	f, err := c.bundle.ParseMessageFileBytes(src, name)
	if err != nil {
		return err
	}
	if c.topics[topic] == nil {
		c.topics[topic] = map[string]map[string]bool{}
	}
	ids := map[string]bool{}
	for _, m := range f.Messages {
		if m.Other == "" {
			return fmt.Errorf("message %s is empty", m.ID)
		}
		ids[m.ID] = true
	}
	c.topics[topic][lang] = ids
	return nil
}

// Missing lists what is not translated: messages that one language of a topic
// has and another lacks. Nil when all is there.
func (c *Catalogue) Missing() []string {
	var out []string
	for topic, langs := range c.topics {
		need := slices.Clone(complete)
		if topic == "display" {
			need = languages
		}
		all := map[string]bool{}
		for _, ids := range langs {
			for id := range ids {
				all[id] = true
			}
		}
		for _, l := range need {
			for id := range all {
				if !langs[l][id] {
					out = append(out, fmt.Sprintf("%s.%s.yaml: %s", topic, l, id))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// Printer speaks one language.
type Printer struct {
	lang  string
	chain []*i18n.Localizer // the language itself, then English, then Chinese
}

// For finds the nearest language to a BCP 47 tag or an Accept-Language header.
func (c *Catalogue) For(lang string) *Printer {
	tags, _, err := language.ParseAcceptLanguage(lang)
	near := languages[0]
	if err == nil && len(tags) > 0 {
		if _, i, conf := c.matcher.Match(tags...); conf > language.No {
			near = languages[i]
		} else {
			near = "en" // somebody who reads none of them is helped most by English
		}
	}
	// A localizer given several languages settles on one of them for all
	// messages; the fallback must be message by message.
	p := &Printer{lang: near}
	for _, l := range []string{near, "en", "zh-Hans"} {
		p.chain = append(p.chain, i18n.NewLocalizer(c.bundle, l))
	}
	return p
}

// Language is the one the printer speaks, one of Languages.
func (p *Printer) Language() string { return p.lang }

// RTL reports whether the language is written from right to left.
func (p *Printer) RTL() bool { return p.lang == "ar" }

// T gives the message id. args are pairs of a name and a value for the
// message's template; a value named Count also chooses the plural form.
func (p *Printer) T(id string, args ...any) string {
	s, err := p.Lookup(id, args...)
	if err != nil {
		return id
	}
	return s
}

// Has reports whether there is a message id.
func (p *Printer) Has(id string) bool {
	_, err := p.localize(&i18n.LocalizeConfig{MessageID: id, PluralCount: 1})
	var missing *i18n.MessageNotFoundErr
	return !errors.As(err, &missing)
}

// localize tries one language after another.
func (p *Printer) localize(lc *i18n.LocalizeConfig) (s string, err error) {
	for _, l := range p.chain {
		if s, err = l.Localize(lc); err == nil {
			return s, nil
		}
	}
	return s, err
}

// Lookup is T with the error.
func (p *Printer) Lookup(id string, args ...any) (string, error) {
	if len(args)%2 != 0 {
		return "", fmt.Errorf("message %s: %d arguments are no pairs of name and value", id, len(args))
	}
	lc := i18n.LocalizeConfig{MessageID: id}
	if len(args) > 0 {
		data := make(map[string]any, len(args)/2)
		for i := 0; i < len(args); i += 2 {
			name, ok := args[i].(string)
			if !ok {
				return "", fmt.Errorf("message %s: argument %d is no name", id, i)
			}
			data[name] = args[i+1]
			if name == "Count" {
				lc.PluralCount = args[i+1]
			}
		}
		lc.TemplateData = data
	}
	s, err := p.localize(&lc)
	if err != nil {
		return "", fmt.Errorf("message %s: %w", id, err)
	}
	return s, nil
}
