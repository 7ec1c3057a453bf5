"""The completion scripts. Each gives bk the words of the line, and on standard input the table of options that it has."""

from __future__ import annotations

SHELLS = ("bash", "zsh", "fish")

_BASH = """# Completion of bk for bash:  source <(bk completion bash)
_bk_table={table}

_bk() {{
    local bk=${{COMP_WORDS[0]/#\\~/$HOME}}
    COMPREPLY=()
    local IFS=$'\\n'
    mapfile -t COMPREPLY < <("$bk" __complete bash "$COMP_WORDBREAKS" "${{COMP_LINE:0:COMP_POINT}}" <<<"$_bk_table" 2>/dev/null)
    if [[ ${{COMPREPLY[0]-}} == :files ]]; then
        local word=${{COMP_WORDS[COMP_CWORD]}}
        [[ $word == = ]] && word=
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    elif [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *[=:/\\[] ]]; then
        compopt -o nospace
    fi
}}

complete -F _bk bk
"""

_ZSH = """#compdef bk
# Completion of bk for zsh:  source <(bk completion zsh), after compinit
_bk_table={table}

_bk() {{
    local line value bk=${{words[1]/#\\~/$HOME}}
    local -a lines ends ends_shown opens opens_shown before
    before=("${{(@Q)words[1,CURRENT-1]}}" "${{(Q)PREFIX}}")
    lines=("${{(@f)$("$bk" __complete zsh "${{before[@]}}" <<<"$_bk_table" 2>/dev/null)}}")
    if [[ ${{lines[1]}} == :files ]]; then
        [[ $PREFIX == --*=* ]] && compset -P '*='
        _files
        return
    fi
    for line in "${{lines[@]}}"; do
        value=${{line%%$'\\t'*}}
        [[ -z $value ]] && continue
        if [[ $value == *[=:/\\[] ]]; then
            opens+=("$value")
            opens_shown+=("${{line/$'\\t'/  -- }}")
        else
            ends+=("$value")
            ends_shown+=("${{line/$'\\t'/  -- }}")
        fi
    done
    compadd -l -S '' -d opens_shown -a opens
    compadd -l -d ends_shown -a ends
}}

if [[ ${{funcstack[1]-}} == _bk ]]; then
    _bk "$@"
else
    compdef _bk bk
fi
"""

_FISH = """# Completion of bk for fish:  bk completion fish | source
set -g __bk_table {table}

function __bk_complete
    set -l words (commandline -opc)
    set -l bk (string replace -r '^~' $HOME -- $words[1])
    set -l token (commandline -ct)
    set -l lines (printf '%s' $__bk_table | $bk __complete fish $words "$token" 2>/dev/null)
    if test "$lines[1]" = :files
        set -l option (string match -r -- '^--[^=]*=' "$token")
        for path in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' "$token"))
            echo -- "$option$path"
        end
    else
        printf '%s\\n' $lines
    end
end

complete -c bk -f -a '(__bk_complete)'
"""


def script(shell: str, table: str) -> str:
    """Return the script for a shell, with the table of options, which is JSON, as a word in its syntax."""
    if shell == "fish":
        return _FISH.format(table="'" + table.replace("\\", "\\\\").replace("'", "\\'") + "'")
    word = "'" + table.replace("'", "'\\''") + "'"
    return (_BASH if shell == "bash" else _ZSH).format(table=word)
