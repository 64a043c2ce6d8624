package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

// The scripts ask vitrine itself what may follow: it knows its commands, flags
// and machines.
const bashCompletion = `# Bash completion: eval "$(vitrine completion bash)"
_vitrine() {
	local cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $cur == -* ]] && words+=("$cur")
	local IFS=$'\n'
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
	[[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace
	return 0
}
complete -o bashdefault -o default -F _vitrine vitrine
`

const zshCompletion = `#compdef vitrine
# Zsh completion: eval "$(vitrine completion zsh)"
_vitrine() {
	local -a lines command
	local cur=${words[CURRENT]}
	command=("${(@)words[1,CURRENT-1]}")
	[[ $cur == -* ]] && command+=("$cur")
	lines=("${(@f)$("${command[@]}" --generate-bash-completion 2>/dev/null)}")
	if [[ -n ${lines[1]} ]]; then
		compadd -- "${lines[@]}"
	else
		_files
	fi
}
compdef _vitrine vitrine
`

const fishCompletion = `# Fish completion: vitrine completion fish | source
function __vitrine_complete
	set -l words (commandline -opc)
	set -l cur (commandline -ct)
	string match -q -- '-*' $cur; and set -a words $cur
	$words --generate-bash-completion 2>/dev/null
end
complete -c vitrine -a '(__vitrine_complete)'
`

func completionCommand() *cli.Command {
	script := func(name, text string) *cli.Command {
		return &cli.Command{
			Name: name, Usage: "print the script for " + name, OnUsageError: onUsageError,
			Action: func(c *cli.Context) error {
				_, err := io.WriteString(c.App.Writer, text)
				return err
			},
		}
	}
	return &cli.Command{
		Name: "completion", Usage: "print a script that completes commands, flags and machines' names in a shell", OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			return usagef("vitrine completion bash, zsh or fish", "completion: want a shell that it is for")
		},
		Subcommands: []*cli.Command{script("bash", bashCompletion), script("zsh", zshCompletion), script("fish", fishCompletion)},
	}
}
