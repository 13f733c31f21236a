package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Patch returns c with the changes of body: a JSON object whose fields are optional. mode and store
// are strings. signals, collections and excludes are each an array, which replaces the set, or an
// object of items, where true adds the item and false removes it. Adding an item that is there, and
// removing one that is not, changes nothing. The error names every invalid value; then no change is
// made.
func (c Config) Patch(body []byte) (Config, error) {
	fields, err := members(body)
	if err != nil {
		return Config{}, fmt.Errorf("the body %w", err)
	}
	var errs []error
	for _, f := range fields {
		switch f.name {
		case "mode":
			errs = append(errs, patchText(&c.Mode, f))
		case "store":
			errs = append(errs, patchText(&c.Store, f))
		case "signals":
			errs = append(errs, patchSet(&c.Signals, f, checkPattern("signal")))
		case "collections":
			errs = append(errs, patchSet(&c.Collections, f, checkPattern("collection")))
		case "excludes":
			errs = append(errs, patchSet(&c.Excludes, f, checkExclude))
		default:
			errs = append(errs, fmt.Errorf("%.400q is not a field of a filter: want mode, store, signals, "+
				"collections, excludes", f.name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	f, err := Compile(c)
	if err != nil {
		return Config{}, err
	}
	return f.Config(), nil
}

// member is one field of a JSON object.
type member struct {
	name  string
	value json.RawMessage // compact, so that an error is one line
}

// members returns the fields of an object. A field that is there twice is an error.
func members(text []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("is %.400q: want a JSON object", text)
	}
	var out []member
	seen := map[string]struct{}{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("is not JSON: %w", err)
		}
		m := member{name: t.(string)} // the decoder accepts nothing else here
		if _, twice := seen[m.name]; twice {
			return nil, fmt.Errorf("has the field %.400q twice", m.name)
		}
		seen[m.name] = struct{}{}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("is not JSON at %.400q: %w", m.name, err)
		}
		var line bytes.Buffer
		if err := json.Compact(&line, value); err != nil {
			return nil, fmt.Errorf("is not JSON at %.400q: %w", m.name, err)
		}
		m.value = line.Bytes()
		out = append(out, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("goes on after the end of its object")
	}
	return out, nil
}

// patchText sets a field that is a string. Compile checks its value, except that an empty one would
// be the default, and so is refused here.
func patchText(field *string, m member) error {
	var text *string
	if err := json.Unmarshal(m.value, &text); err != nil || text == nil {
		return fmt.Errorf("%s is %.400s: want a string", m.name, m.value)
	}
	if *text == "" {
		return fmt.Errorf("%s is empty", m.name)
	}
	*field = *text
	return nil
}

// patchSet replaces a set, or adds and removes items.
func patchSet(set *[]string, m member, check func(string) error) error {
	switch m.value[0] { // a JSON value is not empty
	case '[':
		return replaceSet(set, m, check)
	case '{':
		return editSet(set, m, check)
	}
	return fmt.Errorf("%s is %.400s: want an array, or an object of true and false", m.name, m.value)
}

func replaceSet(set *[]string, m member, check func(string) error) error {
	var items []json.RawMessage
	if err := json.Unmarshal(m.value, &items); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	next := make([]string, 0, len(items))
	var errs []error
	for _, item := range items {
		var text *string
		if err := json.Unmarshal(item, &text); err != nil || text == nil {
			errs = append(errs, fmt.Errorf("%s has the item %.400s: want a string", m.name, item))
			continue
		}
		errs, next = append(errs, check(*text)), append(next, *text)
	}
	*set = next
	return errors.Join(errs...)
}

func editSet(set *[]string, m member, check func(string) error) error {
	items, err := members(m.value)
	if err != nil {
		return fmt.Errorf("%s %w", m.name, err)
	}
	var errs []error
	removed := map[string]struct{}{}
	next := slices.Clone(*set)
	for _, item := range items {
		// Items to remove are checked too: a misspelt one would be silently kept.
		errs = append(errs, check(item.name))
		switch string(item.value) {
		case "true":
			next = append(next, item.name)
		case "false":
			removed[item.name] = struct{}{}
		default:
			errs = append(errs, fmt.Errorf("%s has %.400s for %.400q: want true or false",
				m.name, item.value, item.name))
		}
	}
	*set = slices.DeleteFunc(next, func(item string) bool { _, ok := removed[item]; return ok })
	return errors.Join(errs...)
}

func checkPattern(noun string) func(string) error {
	return func(text string) error {
		_, err := parse(noun, text)
		return err
	}
}
