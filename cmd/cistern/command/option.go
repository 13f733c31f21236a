package command

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"
)

// Option is one row of a table of options: a flag with its variable, default and help.
type Option struct {
	Name    string // of the flag, without dashes; the name of the variable derives from it
	Alias   string // a second name of the flag; "" for none
	Value   string // placeholder of the value; "" for a switch
	Default string // the default, as a user would type it
	Help    string
	Repeat  bool // may be given more than once; commas separate the values in the variable
	Secret  bool // never shown in an error
	// Set checks a value and stores it. Its error says which values are valid.
	Set func(value string) error
}

// EnvPrefix begins the name of the variable of each option.
const EnvPrefix = "CISTERN_"

// Variable returns the name of the variable that gives o.
func (o Option) Variable() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// Load sets each option from the flags of cmd, else from its variable in env, else to its default.
// Without variables env is nil. It returns the names of the options that were given and of those
// whose values were rejected, and a mistake for each rejected value: Mistakes joins them.
func Load(options []Option, cmd *cli.Command, env map[string]string) (given, bad []string,
	errs []error) {
	for _, o := range options {
		values, source := []string{o.Default}, "--"+o.Name
		switch {
		case cmd.IsSet(o.Name) && o.Value == "":
			values = []string{strconv.FormatBool(cmd.Bool(o.Name))}
		case cmd.IsSet(o.Name):
			values = cmd.StringSlice(o.Name)
		case env[o.Variable()] != "":
			values, source = o.split(env[o.Variable()]), o.Variable()
		case o.Default == "":
			continue
		}
		if cmd.IsSet(o.Name) || env[o.Variable()] != "" {
			given = append(given, o.Name)
		}
		if err := o.setAll(source, values); err != nil {
			errs, bad = append(errs, err...), append(bad, o.Name)
		}
	}
	return given, bad, errs
}

// setAll sets the values of an option. Its errors name the source and the value.
func (o Option) setAll(source string, values []string) (errs []error) {
	if len(values) > 1 && !o.Repeat {
		return []error{fmt.Errorf("%s: given %d times, want one value", source, len(values))}
	}
	for _, value := range values {
		switch err := o.Set(value); {
		case err == nil:
		case o.Secret:
			errs = append(errs, fmt.Errorf("%s: %w", source, err))
		default:
			errs = append(errs, fmt.Errorf("%s %q: %w", source, withoutUser(value), err))
		}
	}
	return errs
}

func (o Option) split(value string) []string {
	if !o.Repeat {
		return []string{value}
	}
	values := strings.Split(value, ",")
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	return values
}

// Mistakes joins the mistakes of a command line into one UsageError that lists them, nil for none.
func Mistakes(errs []error) error {
	if len(errs) < 2 {
		return UsageError(errors.Join(errs...))
	}
	var lines strings.Builder
	for _, err := range errs {
		fmt.Fprintf(&lines, "\n  %s", err)
	}
	return UsageError(fmt.Errorf("%d mistakes:%s", len(errs), &lines))
}

// ReadEnviron returns the variables of environ that give known options, by name, for Load. It also
// returns a mistake for each other variable that begins with EnvPrefix.
func ReadEnviron(environ []string, known []Option) (env map[string]string, errs []error) {
	var names []cli.Flag
	for _, o := range known {
		names = append(names, &cli.StringFlag{Name: o.Variable()})
	}
	env = make(map[string]string)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		nearest := strings.TrimLeft(cli.SuggestFlag(names, name, true), "-")
		switch {
		case !strings.HasPrefix(name, EnvPrefix):
		case name == nearest:
			env[name] = value
		default:
			errs = append(errs, fmt.Errorf("unknown variable %s; the nearest known is %s", name,
				nearest))
		}
	}
	return env, errs
}

// Only returns the options of these names, in the table's order; all of them if names is empty.
func Only(options []Option, names ...string) []Option {
	return slices.DeleteFunc(options, func(o Option) bool {
		return len(names) > 0 && !slices.Contains(names, o.Name)
	})
}

// Flags declares options to the command line. Load reads their values.
func Flags(options []Option) (flags []cli.Flag) {
	for _, o := range options {
		usage := "\n" + o.Help
		if o.Repeat {
			usage = "  (repeatable)" + usage
		}
		if o.Default != "" {
			usage += " Default " + o.Default + "."
		}
		if o.Value == "" {
			flags = append(flags, &cli.BoolFlag{Name: o.Name, Usage: usage})
			continue
		}
		flags = append(flags, &cli.StringSliceFlag{Name: o.Name, Aliases: strings.Fields(o.Alias),
			Usage: " " + o.Value + usage})
	}
	return flags
}

// Set returns a setter for an option, which stores the value that parse returns in field.
func Set[T any](field *T, parse func(string) (T, error)) func(string) error {
	return func(s string) (err error) { *field, err = parse(s); return err }
}

// Add returns a setter for an option, which appends the value that parse returns to field.
func Add[S ~[]T, T any](field *S, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		value, err := parse(s)
		if err == nil {
			*field = append(*field, value)
		}
		return err
	}
}
