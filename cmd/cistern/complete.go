package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

const completionAbout = `Print a script that has a shell complete the commands and options of cistern.

  bash        source <(cistern completion bash)
  zsh         source <(cistern completion zsh)
  fish        cistern completion fish | source
  PowerShell  cistern completion pwsh | Out-String | Invoke-Expression

In bash it works with and without the package bash-completion, and in zsh after
compinit. The Debian package installs the scripts for bash (where bash-completion
loads them), zsh and fish.`

const completionExamples = `  cistern completion bash > /usr/share/bash-completion/completions/cistern
`

// bashWords defines what the script for bash needs of the package bash-completion, where that is not
// installed: the words are then those that bash has split, which suffices for commands and options.
const bashWords = `declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() { :; }

`

// shells are the arguments of completion.
var shells = []string{"bash", "zsh", "fish", "pwsh"}

func (a *app) completionCommand() *cli.Command {
	cmd := &cli.Command{
		Name:               "completion",
		Usage:              "print a script that completes commands in a shell",
		UsageText:          "cistern completion " + strings.Join(shells, "|"),
		Description:        completionAbout,
		CustomHelpTemplate: helpTemplate + completionExamples,
	}
	for _, shell := range shells {
		cmd.Commands = append(cmd.Commands, &cli.Command{
			Name: shell, Usage: "print the script for " + shell,
			UsageText:          "cistern completion " + shell,
			Description:        "Print the script for " + shell + ".",
			CustomHelpTemplate: helpTemplate + "  cistern completion " + shell + "\n",
			Action: func(ctx context.Context, cmd *cli.Command) error {
				if err := noArguments(cmd); err != nil {
					return err
				}
				if shell == "bash" {
					if _, err := fmt.Fprint(a.stdout, bashWords); err != nil {
						return err
					}
				}
				// The library has the scripts, for programs that leave the command to it.
				scripts := &cli.Command{Name: "cistern", EnableShellCompletion: true, Writer: a.stdout,
					ExitErrHandler: func(context.Context, *cli.Command, error) {}}
				return scripts.Run(ctx, []string{"cistern", "completion", shell})
			},
		})
	}
	return cmd
}

// completionFlag is what the scripts append to a command line whose end is to be completed.
const completionFlag = "--generate-shell-completion"

// complete prints what may follow args on the command line: commands, or options after a dash, each
// with a colon and what it does.
func (a *app) complete(cmd *cli.Command, args []string) error {
	last := ""
	for i, arg := range args {
		if next := cmd.Command(arg); next != nil && !strings.HasPrefix(arg, "-") {
			cmd = next
		} else if i == len(args)-1 {
			last = arg
		}
	}
	if !strings.HasPrefix(last, "-") {
		for _, sub := range cmd.Commands {
			if _, err := fmt.Fprintf(a.stdout, "%s:%s\n", sub.Name, sub.Usage); err != nil {
				return err
			}
		}
		return nil
	}
	for _, f := range cmd.Flags {
		shown, ok := f.(cli.DocGenerationFlag)
		name := "--" + f.Names()[0]
		if !ok || !strings.HasPrefix(name, last) && last != "-" {
			continue
		}
		_, help, _ := strings.Cut(shown.GetUsage(), "\n")
		help, _, _ = strings.Cut(strings.ReplaceAll(help, ":", ""), ". ")
		if _, err := fmt.Fprintf(a.stdout, "%s:%s\n", name, help); err != nil {
			return err
		}
	}
	return nil
}
