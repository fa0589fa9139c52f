"""curbside completion: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EXAMPLES = """\b
Examples:
  eval "$(curbside completion bash)"
  curbside completion zsh > ~/.zfunc/_curbside
  curbside completion fish > ~/.config/fish/completions/curbside.fish
"""


@click.command("completion", epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "curbside", "_CURBSIDE_COMPLETE")
    # `source()` of bash asks the bash of this machine for its version; the script does not depend on it.
    click.echo(script.source_template % script.source_vars())
