package command

import (
	"context"
	"errors"
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
compinit. The Debian package installs the scripts for bash (where
bash-completion loads them), zsh and fish.`

const completionExamples = `  cistern completion bash > /usr/share/bash-completion/completions/cistern
`

// bashWords defines what the script for bash needs of the package bash-completion, where that is
// not installed: the words are then those that bash has split, which suffices for commands and
// options.
const bashWords = `declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() { :; }

`

// shells are the arguments of completion.
var shells = []string{"bash", "zsh", "fish", "pwsh"}

// Completion returns the command that prints the scripts of shells.
func (p *Process) Completion() *cli.Command {
	cmd := &cli.Command{
		Name:               "completion",
		Usage:              "print a script that completes commands in a shell",
		UsageText:          "cistern completion " + strings.Join(shells, "|"),
		Description:        completionAbout,
		CustomHelpTemplate: HelpTemplate + completionExamples,
	}
	for _, shell := range shells {
		cmd.Commands = append(cmd.Commands, &cli.Command{
			Name: shell, Usage: "print the script for " + shell,
			UsageText:          "cistern completion " + shell,
			Description:        "Print the script for " + shell + ".",
			CustomHelpTemplate: HelpTemplate + "  cistern completion " + shell + "\n",
			Action: func(ctx context.Context, cmd *cli.Command) error {
				if err := NoArguments(cmd); err != nil {
					return err
				}
				script, err := completionScript(ctx, shell)
				if err == nil {
					_, err = fmt.Fprint(p.Stdout, script)
				}
				return err
			},
		})
	}
	return cmd
}

// bashEval is how the script of the library asks for words: it runs the command line as it was
// typed, with its redirections and substitutions. bashAsk passes the words as they are.
const (
	bashEval = `    request_comp="$(__cistern_build_completion_request)"
    opts=$(eval "${request_comp}" 2>/dev/null)
`
	bashAsk = `    local -a asked=("${words[0]/#\~/$HOME}" "${words[@]:1:cword-1}")
    [[ "${cur}" != "-"* ]] || asked+=("${cur}")
    opts=$("${asked[@]}" --generate-shell-completion 2>/dev/null)
`
)

// valueless is a context without values: by them the library would print to the command that runs.
type valueless struct{ context.Context }

func (valueless) Value(any) any { return nil }

// completionScript returns the script for a shell. The library has it, for programs that leave the
// command to it.
func completionScript(ctx context.Context, shell string) (string, error) {
	var out strings.Builder
	scripts := &cli.Command{Name: "cistern", EnableShellCompletion: true, Writer: &out,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}}
	err := scripts.Run(valueless{ctx}, []string{"cistern", "completion", shell})
	if err != nil || shell != "bash" {
		return out.String(), err
	}
	script := strings.Replace(out.String(), bashEval, bashAsk, 1)
	if !strings.Contains(script, bashAsk) {
		return "", errors.New("the script of the library has changed: it would run the command line")
	}
	return bashWords + script, nil
}

// completionFlag is what the scripts append to a command line whose end is to be completed.
const completionFlag = "--generate-shell-completion"

// complete prints what may follow args on the command line: commands, or options after a dash, each
// with a colon and what it does.
func (p *Process) complete(cmd *cli.Command, args []string) error {
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
			if _, err := fmt.Fprintf(p.Stdout, "%s:%s\n", sub.Name, sub.Usage); err != nil {
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
		if _, err := fmt.Fprintf(p.Stdout, "%s:%s\n", name, help); err != nil {
			return err
		}
	}
	return nil
}
