package remote

import (
	"cistern/cmd/cistern/command"

	"github.com/urfave/cli/v3"
)

// Options is what the commands need of their program.
type Options struct {
	*command.Process
	// Known are the options that variables may set. A variable that begins with CISTERN_ and sets no
	// known option is a mistake.
	Known []command.Option
	// Step is called before each step of the screen of top. Only tests set it.
	Step func(name string)
}

// The addresses where a daemon listens, and commands look for it, unless an option says otherwise.
const (
	ListenDefault = ":2481"          // public
	AdminDefault  = "127.0.0.1:2480" // private
)

// Commands returns the commands, in the order of the help page.
func Commands(o *Options) []*cli.Command {
	return []*cli.Command{o.statusCommand(), o.topCommand(), o.tailCommand(), o.repoCommand(),
		o.hostCommand(), o.subscriptionCommand(), o.maintainCommand(), o.phaseCommand(),
		o.alertsCommand()}
}
