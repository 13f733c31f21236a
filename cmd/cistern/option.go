package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"
)

// option is one row of a table of options.
type option struct {
	name     string // of the flag; the name of the variable derives from it
	alias    string // a second name of the flag; "" for none
	value    string // placeholder of the value; "" for a switch
	standard string // the default, as a user would type it
	help     string
	repeat   bool // may be given more than once; commas separate the values in the variable
	secret   bool // never shown in an error
	set      func(value string) error
}

// envPrefix begins the name of the variable of each option.
const envPrefix = "CISTERN_"

// variable returns the name of the variable that gives o.
func (o option) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// load sets each option from the flags of cmd, else from its variable in env, else to its default.
// It returns the names of the options that were given and of those whose values were rejected.
func load(options []option, cmd *cli.Command, env map[string]string) (given, bad []string,
	errs []error) {
	for _, o := range options {
		values, source := []string{o.standard}, "--"+o.name
		switch {
		case cmd.IsSet(o.name) && o.value == "":
			values = []string{strconv.FormatBool(cmd.Bool(o.name))}
		case cmd.IsSet(o.name):
			values = cmd.StringSlice(o.name)
		case env[o.variable()] != "":
			values, source = o.split(env[o.variable()]), o.variable()
		case o.standard == "":
			continue
		}
		if cmd.IsSet(o.name) || env[o.variable()] != "" {
			given = append(given, o.name)
		}
		if err := o.setAll(source, values); err != nil {
			errs, bad = append(errs, err...), append(bad, o.name)
		}
	}
	return given, bad, errs
}

// setAll sets the values of an option. Its errors name the source and the value.
func (o option) setAll(source string, values []string) (errs []error) {
	if len(values) > 1 && !o.repeat {
		return []error{fmt.Errorf("%s: given %d times, want one value", source, len(values))}
	}
	for _, value := range values {
		switch err := o.set(value); {
		case err == nil:
		case o.secret:
			errs = append(errs, fmt.Errorf("%s: %w", source, err))
		default:
			errs = append(errs, fmt.Errorf("%s %q: %w", source, withoutUser(value), err))
		}
	}
	return errs
}

func (o option) split(value string) []string {
	if !o.repeat {
		return []string{value}
	}
	values := strings.Split(value, ",")
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	return values
}

// mistakes joins the mistakes of a command line into one error that lists them.
func mistakes(errs []error) error {
	if len(errs) < 2 {
		return usageError(errors.Join(errs...))
	}
	var lines strings.Builder
	for _, err := range errs {
		fmt.Fprintf(&lines, "\n  %s", err)
	}
	return usageError(fmt.Errorf("%d mistakes:%s", len(errs), &lines))
}

// readEnviron returns the variables of the daemon's options, and an error for each CISTERN_*
// variable that no option reads.
func readEnviron(environ []string) (env map[string]string, errs []error) {
	var known []cli.Flag
	for _, o := range (&Config{}).options() {
		known = append(known, &cli.StringFlag{Name: o.variable()})
	}
	env = make(map[string]string)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		nearest := strings.TrimLeft(cli.SuggestFlag(known, name, true), "-")
		switch {
		case !strings.HasPrefix(name, envPrefix):
		case name == nearest:
			env[name] = value
		default:
			errs = append(errs, fmt.Errorf("unknown variable %s; the nearest known is %s", name,
				nearest))
		}
	}
	return env, errs
}

// only returns the options of these names, in the table's order; all of them if names is empty.
func only(options []option, names ...string) []option {
	return slices.DeleteFunc(options, func(o option) bool {
		return len(names) > 0 && !slices.Contains(names, o.name)
	})
}

// flags declares options to the command line. load reads their values.
func flags(options []option) (flags []cli.Flag) {
	for _, o := range options {
		usage := "\n" + o.help
		if o.repeat {
			usage = "  (repeatable)" + usage
		}
		if o.standard != "" {
			usage += " Default " + o.standard + "."
		}
		if o.value == "" {
			flags = append(flags, &cli.BoolFlag{Name: o.name, Usage: usage})
			continue
		}
		flags = append(flags, &cli.StringSliceFlag{Name: o.name, Aliases: strings.Fields(o.alias),
			Usage: " " + o.value + usage})
	}
	return flags
}

// set returns a setter that stores the value that parse returns.
func set[T any](field *T, parse func(string) (T, error)) func(string) error {
	return func(s string) (err error) { *field, err = parse(s); return err }
}

// add returns a setter that appends the value that parse returns.
func add[S ~[]T, T any](field *S, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		value, err := parse(s)
		if err == nil {
			*field = append(*field, value)
		}
		return err
	}
}
