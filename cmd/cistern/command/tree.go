package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cistern/console"

	"github.com/urfave/cli/v3"
)

// prepare renders the help pages of cmd and of the commands below it. Each command then answers a
// bad flag in one line and takes the value of a flag whole, commas included.
func prepare(cmd *cli.Command, args []string) {
	cmd.CustomHelpTemplate = Page(cmd.CustomHelpTemplate, cmd, helpColumns)
	cmd.CustomRootCommandHelpTemplate = cmd.CustomHelpTemplate
	cmd.DisableSliceFlagSeparator = true
	cmd.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return UsageError(fmt.Errorf("%w%s (see: %s --help)", err, suggestFlag(cmd, args),
			cmd.FullName()))
	}
	for _, sub := range cmd.Commands {
		prepare(sub, args)
		sub.Hidden = true // the library ignores the page of a command with visible ones below it
	}
}

// checkCommands rejects args that name no command, whether or not they ask for its help.
func checkCommands(cmd *cli.Command, args []string) error {
	path := cmd.Name
	for _, name := range args {
		if name == "help" || name == "h" {
			continue
		}
		if strings.HasPrefix(name, "-") || len(cmd.Commands) == 0 {
			return nil
		}
		next := cmd.Command(name)
		switch {
		case next == nil && cmd.Action != nil && strings.Contains(name, "/"):
			return nil // an argument: no command has a slash in its name
		case next == nil && cmd.Action != nil:
			return fmt.Errorf("%s has no command %q; a directory needs a slash in its name, such as "+
				"./%[2]s (see: %s --help)", strings.TrimPrefix(path, "cistern "), name, path)
		case next == nil:
			return fmt.Errorf("unknown command %q; did you mean %s? (see: %s --help)", name,
				cli.SuggestCommand(cmd.Commands, name), path)
		}
		cmd, path = next, path+" "+name
	}
	return nil
}

// suggestFlag returns the flag of cmd that is nearest to the first unknown one of args, as words
// to append to an error.
func suggestFlag(cmd *cli.Command, args []string) string {
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || name == "" || slices.ContainsFunc(cmd.Flags,
			func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }) {
			continue
		}
		if nearest := cli.SuggestFlag(cmd.Flags, name, false); nearest != "" {
			return fmt.Sprintf("; did you mean %s?", nearest)
		}
	}
	return ""
}

// NoArguments returns a UsageError if arguments follow cmd, else nil.
func NoArguments(cmd *cli.Command) error {
	if cmd.NArg() > 0 {
		return UsageError(fmt.Errorf("%s takes no arguments, got %q", Subject(cmd), cmd.Args().First()))
	}
	return nil
}

// WantArguments returns a UsageError if cmd does not have exactly n arguments or one of them is
// empty, else nil. form names the arguments for the error.
func WantArguments(cmd *cli.Command, n int, form string) error {
	switch {
	case cmd.NArg() != n:
		return UsageError(fmt.Errorf("%s takes %s, got %s", Subject(cmd), form,
			console.Count(int64(cmd.NArg()), "argument")))
	case slices.Contains(cmd.Args().Slice(), ""):
		return UsageError(fmt.Errorf("%s takes %s, got an empty argument", Subject(cmd), form))
	}
	return nil
}

// Subject returns the name of a command for an error, such as repo add: an error begins with the
// name of the program already.
func Subject(cmd *cli.Command) string { return strings.TrimPrefix(cmd.FullName(), "cistern ") }
