"""The click group of a domain: lazy commands, and errors as sentences with an exit code."""

from __future__ import annotations

import difflib
import errno
import pkgutil
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from polydit.core.errors import PolyditError

INTERRUPTED, TERMINATED = 130, 143
EPILOG = "Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 some items failed, 130/143 interrupted."


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt so that files are left consistent."""


class DomainGroup(click.Group):
    """A group whose commands are imported when they are called.

    Args:
        lazy: Command -> (``"module:attribute"``, one line of help). ``--help`` reads this table alone.
        distributions: Names shown by ``--version``, the domain's own first.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]] | None = None,
        distributions: tuple[str, ...] = ("polydit-core",),
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or "polydit"
        context = {
            "auto_envvar_prefix": name.upper(),
            "help_option_names": ["-h", "--help"],
            "max_content_width": 110,
            "show_default": True,
        }
        kwargs["context_settings"] = {**context, **kwargs.get("context_settings", {})}
        kwargs.setdefault("epilog", EPILOG)
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.params.append(_version_option(distributions))
        self.add_command(_completion_command(), "completion")

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = [name for name in super().list_commands(ctx) if name not in self.lazy]
        return [*self.lazy, *own]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        command = pkgutil.resolve_name(self.lazy[cmd_name][0])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].isidentifier() and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.lazy:
                rows.append((name, self.lazy[name][1]))
            elif (command := super().get_command(ctx, name)) is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=90)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        with _sigterm_unwinds():
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.Abort, click.exceptions.Exit):
                raise
            except KeyboardInterrupt:
                _stop(ctx, "Interrupted. Run the same command again to continue.", INTERRUPTED)
            except Terminated:
                _stop(ctx, "Terminated. Run the same command again to continue.", TERMINATED)
            except PolyditError as error:
                _stop(ctx, f"Error: {error}", error.exit_code)
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EPIPE:
                    raise  # click ends quietly when the reader of a pipe has gone
                _stop(ctx, _unexpected(error), PolyditError.exit_code)


def _stop(ctx: click.Context, message: str, code: int) -> NoReturn:
    if ctx.meta.get("polydit.debug"):
        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(message, err=True)
    ctx.exit(code)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"Error: {error}"  # "No space left on device: 'run/items/…'" says it all
    return f"Error: unexpected {type(error).__name__}: {error}. Run again with --debug for the traceback."


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """While a command runs, SIGTERM raises Terminated in the main thread instead of killing the process."""

    def unwind(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _version_option(distributions: tuple[str, ...]) -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from importlib.metadata import version

            click.echo("\n".join(f"{name} {version(name)}" for name in distributions))
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show versions and exit.",
    )


def _completion_command() -> click.Command:
    @click.command(name="completion", short_help="Print the completion script of a shell.")
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def completion(ctx: click.Context, shell: str) -> None:
        """Print the completion script of a shell.

        \b
        bash: PROGRAM completion bash >> ~/.bashrc
        zsh:  PROGRAM completion zsh >> ~/.zshrc
        fish: PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish
        """
        from click.shell_completion import get_completion_class

        root = ctx.find_root()
        program = root.info_name or "polydit"
        source = get_completion_class(shell)
        assert source is not None
        variable = f"_{program}_COMPLETE".replace("-", "_").upper()
        click.echo(source(root.command, {}, program, variable).source())

    return completion
